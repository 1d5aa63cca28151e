use crate::proxy::control::Command;
use crate::proxy::route::live::LiveTable;
use crate::proxy::route::table::Table;

/// A line of the control socket: what was parsed parses the same after being written again, and a table
/// routes what it names.
pub fn control(line: &[u8]) {
    let Ok(command) = serde_json::from_slice::<Command>(line) else {
        return;
    };
    let said = serde_json::to_vec(&command).expect("a command becomes JSON");
    let again: Command = serde_json::from_slice(&said).expect("what was said is understood");
    assert_eq!(format!("{command:?}"), format!("{again:?}"));
    if let Command::Publish(table) = command {
        routed(table);
    }
}

/// Each host and prefix leads to its own route, or to one that is more specific or newer.
fn routed(table: Table) {
    let live = LiveTable::build(table.clone(), &[]);
    assert_eq!(*live.table, table);
    for route in &table.routes {
        let plain = |host: &&String| {
            let name = |b: u8| b.is_ascii_alphanumeric() || b"-.".contains(&b);
            host.bytes().all(name) && !host.ends_with('.')
        };
        for host in route.hosts.iter().filter(plain) {
            let found = live.find(host, &route.path_prefix);
            let found = found.expect("its own route at least");
            let own = |other: &String| other.eq_ignore_ascii_case(host);
            // No host stands for every one that no route names, as a route without hosts does.
            let any = host.is_empty() && found.hosts.is_empty();
            assert!(any || found.hosts.iter().any(own), "another host's route");
            let rank = |(prefix, generation): (&str, u64)| (prefix.len(), generation);
            let found = rank((&found.path_prefix, found.generation));
            let own = rank((&route.path_prefix, route.generation));
            assert!(found >= own, "a less precise route, or an older one");
        }
    }
}
