//! Compiles two programs into static binaries that are embedded in `cutover`, so that images are built
//! `FROM scratch`, without a registry and without a compiler at run time: the sample app of the demo
//! and the tests, and the server of static sites.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Each program's name, and the folder of its source.
const PROGRAMS: [(&str, &str); 2] = [("hello", "examples/hello/src"), ("site", "src/site")];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let folder = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    for (name, source) in PROGRAMS {
        println!("cargo::rerun-if-changed={source}");
        let out = folder.join(name);
        if let Err(why) = compile(name, source, &out) {
            // Whatever needs it says what is missing; everything else works without.
            println!("cargo::warning=the program `{name}` is left out: {why}");
            std::fs::write(&out, b"").expect("OUT_DIR can be written");
        }
    }
}

fn compile(name: &str, source: &str, out: &Path) -> Result<(), String> {
    let target = env::var("TARGET").expect("cargo sets TARGET");
    if !target.contains("-linux-") {
        return Err(format!("{target} has no Linux containers of its own"));
    }
    let mut rustc = Command::new(env::var_os("RUSTC").expect("cargo sets RUSTC"));
    rustc
        .args(["--edition", "2024", "--crate-type", "bin"])
        .args(["--crate-name", name, "--target", &target])
        .args(["-C", "target-feature=+crt-static", "-C", "opt-level=s"])
        .args(["-C", "panic=abort", "-C", "strip=symbols"])
        .args(["-C", "codegen-units=1", &format!("{source}/main.rs"), "-o"])
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
