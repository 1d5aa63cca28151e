//! Compiles the sample app into a static binary that is embedded in `cutover`, so that the demo and
//! the tests build `FROM scratch` images without a registry and without a compiler at run time.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE: &str = "examples/hello/src/main.rs";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=examples/hello/src");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("hello");
    if let Err(why) = compile(&out) {
        // `cutover demo` says what is missing; everything else works without the sample app.
        println!("cargo::warning=the sample app is left out: {why}");
        std::fs::write(&out, b"").expect("OUT_DIR can be written");
    }
}

fn compile(out: &Path) -> Result<(), String> {
    let target = env::var("TARGET").expect("cargo sets TARGET");
    if !target.contains("-linux-") {
        return Err(format!("{target} has no Linux containers of its own"));
    }
    let mut rustc = Command::new(env::var_os("RUSTC").expect("cargo sets RUSTC"));
    rustc
        .args(["--edition", "2024", "--crate-type", "bin"])
        .args(["--crate-name", "hello", "--target", &target])
        .args(["-C", "target-feature=+crt-static", "-C", "opt-level=s"])
        .args(["-C", "panic=abort", "-C", "strip=symbols"])
        .args(["-C", "codegen-units=1", SOURCE, "-o"])
        .arg(out);
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut flag = std::ffi::OsString::from("linker=");
        flag.push(linker);
        rustc.arg("-C").arg(flag);
    }
    let ended = rustc
        .output()
        .map_err(|error| format!("rustc cannot be run: {error}"))?;
    if !ended.status.success() {
        let text = String::from_utf8_lossy(&ended.stderr);
        let text: Vec<_> = text.lines().take(4).collect();
        return Err(format!(
            "static linking needs the C library's static part (`apt-get install libc6-dev`): {}",
            text.join("; ")
        ));
    }
    Ok(())
}
