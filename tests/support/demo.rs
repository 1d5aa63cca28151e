//! What the demo plays with, compiled into the tests: the library keeps it to itself.

#[path = "../../src/cli/demo/agent.rs"]
pub mod agent;
#[path = "../../src/cli/demo/cleanup.rs"]
pub mod cleanup;
#[path = "../../src/cli/demo/forge.rs"]
pub mod forge;
#[path = "../../src/cli/demo/http.rs"]
pub mod http;
#[path = "../../src/cli/demo/load/mod.rs"]
pub mod load;
#[path = "../../src/cli/demo/repository.rs"]
pub mod repository;
#[path = "../../src/cli/demo/sample.rs"]
pub mod sample;
#[path = "../../src/cli/demo/stage.rs"]
pub mod stage;
