//! What the test of a deployment's image said of its single tests.

use std::fmt;

use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Result, json, to_json};
use crate::ids::DeploymentId;

/// How many names of failed tests are named in a sentence.
const NAMED: usize = 3;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = TestResults)]
pub struct Results {
    /// How many there are.
    #[schema(example = 120)]
    pub tests: u64,
    pub failed: u64,
    pub skipped: u64,
    /// The names of the first that failed.
    pub failures: Vec<String>,
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.tests == 1 { "" } else { "s" };
        write!(f, "{} test{plural}, {} failed", self.tests, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        let named = &self.failures[..self.failures.len().min(NAMED)];
        if !named.is_empty() {
            write!(f, ": {}", named.join(", "))?;
        }
        match self.failed.saturating_sub(named.len() as u64) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// Those of an earlier attempt are replaced.
pub fn record(db: &Connection, deployment: &DeploymentId, results: &Results) -> Result<()> {
    let sql = "INSERT OR REPLACE INTO test_results (deployment, results) VALUES (?1, ?2)";
    db.execute(sql, (deployment.as_str(), to_json(results)?))?;
    Ok(())
}

pub fn of(db: &Connection, deployment: &DeploymentId) -> Result<Option<Results>> {
    let mut query = db.prepare_cached("SELECT results FROM test_results WHERE deployment = ?1")?;
    let mut rows = query.query_map([deployment.as_str()], |row| json(row, "results"))?;
    Ok(rows.next().transpose()?.flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_names_the_first_that_failed() {
        let said = |tests, failures: &[&str], skipped| {
            let failures: Vec<String> = failures.iter().map(|it| (*it).to_owned()).collect();
            let failed = failures.len() as u64;
            let results = Results {
                tests,
                failed,
                skipped,
                failures,
            };
            results.to_string()
        };
        assert_eq!(said(1, &[], 0), "1 test, 0 failed");
        assert_eq!(
            said(9, &["a", "b"], 1),
            "9 tests, 2 failed, 1 skipped: a, b"
        );
        let five = said(9, &["a", "b", "c", "d", "e"], 0);
        assert_eq!(five, "9 tests, 5 failed: a, b, c and 2 more");
    }
}
