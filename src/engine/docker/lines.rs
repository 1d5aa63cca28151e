//! The output of containers, with its times.

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};

use super::{Docker, Result, status_code};
use crate::engine::output::Wanted;
use crate::engine::output::{Line, Lines, Stream};
use crate::store::ours::Ours;

impl Docker {
    pub async fn output(
        &self,
        ours: &Ours,
        wanted: Wanted,
    ) -> Result<BoxStream<'static, Result<Line>>> {
        let Some(id) = self.id(ours).await? else {
            return Ok(stream::empty().boxed());
        };
        let mut options = LogsOptionsBuilder::new()
            .stdout(true)
            .stderr(true)
            .timestamps(true)
            .follow(wanted.follow)
            .since(wanted.since.unwrap_or(0));
        if let Some(lines) = wanted.tail {
            options = options.tail(&lines.to_string());
        }
        let pieces = self.client()?.logs(&id, Some(options.build()));
        // One that is removed meanwhile has ended.
        let pieces = pieces.take_while(|piece| {
            let gone = piece.as_ref().is_err_and(|e| status_code(e) == Some(404));
            std::future::ready(!gone)
        });
        let (docker, name) = (self.clone(), ours.name.clone());
        let pieces = pieces
            .map_err(move |error| docker.failed(format!("read the output of `{name}`"))(error));
        let both = (Lines::of(Stream::Stdout), Lines::of(Stream::Stderr));
        // `None` after the last piece gives the lines that have no end.
        let pieces = pieces.map(Some).chain(stream::iter([None]));
        let lines = pieces.scan(both, |(out, err), piece| {
            let lines = match piece {
                Some(Ok(LogOutput::StdErr { message })) => vec![Ok(err.take(&message))],
                Some(Ok(other)) => vec![Ok(out.take(&other.into_bytes()))],
                Some(Err(error)) => vec![Err(error)],
                None => vec![Ok(out.rest()), Ok(err.rest())],
            };
            std::future::ready(Some(stream::iter(lines)))
        });
        let lines = lines
            .flatten()
            .filter_map(|line| std::future::ready(line.transpose()));
        Ok(lines.boxed())
    }
}
