//! Lists: `{"items": […], "next": cursor or null}`, newest first.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::ApiError;
use super::output::time_of;
use crate::state::State;
use crate::store::deployments::{Filter, Trigger};

const LIMIT: usize = 50;
const MOST: usize = 200;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// How many items to return at most.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<usize>,
    /// `next` of the previous page; the first page if absent.
    cursor: Option<String>,
    /// Only those since then: a time of RFC 3339, or how long ago, such as `2h` or `7d`.
    #[param(example = "7d")]
    since: Option<String>,
}

/// Which part of a list that is sorted by name.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct NamesQuery {
    /// How many items to return at most; all of them if absent.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<usize>,
    /// `next` of the previous page; the first page if absent.
    cursor: Option<String>,
}

impl NamesQuery {
    /// At most so many, after the one with this name.
    pub fn page(self) -> Result<(usize, Option<String>), ApiError> {
        match self.limit {
            None => Ok((usize::MAX - 1, self.cursor)),
            some => Ok((PageQuery::of(some, None).limit()?, self.cursor)),
        }
    }
}

/// Which part of an app's deployments.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeploymentsQuery {
    /// How many items to return at most.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<usize>,
    /// `next` of the previous page; the first page if absent.
    cursor: Option<String>,
    /// Only those in this state.
    #[param(inline, nullable = false)]
    state: Option<State>,
    /// Only those that came about in this way.
    #[param(inline, nullable = false)]
    trigger: Option<Trigger>,
    /// Only those since then: a time of RFC 3339, or how long ago, such as `2h` or `7d`.
    #[param(example = "7d")]
    since: Option<String>,
}

impl DeploymentsQuery {
    pub fn page(&self) -> PageQuery {
        PageQuery::of(self.limit, self.cursor.clone())
    }

    pub fn filter(&self) -> Result<Filter, ApiError> {
        Ok(Filter {
            state: self.state,
            trigger: self.trigger,
            since: self.since.as_deref().map(since).transpose()?,
        })
    }
}

/// The moment of a `since`, in milliseconds since 1970.
pub fn since(text: &str) -> Result<i64, ApiError> {
    let wrong = "`since` must be a time of RFC 3339, or how long ago such as `2h` or `7d`";
    let time = time_of(text).ok_or_else(|| ApiError::bad_request(wrong))?;
    Ok(time.saturating_mul(1000))
}

/// A part of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    items: Vec<T>,
    /// The `cursor` of the next page; null on the last one.
    #[schema(required)]
    next: Option<String>,
}

impl PageQuery {
    pub fn of(limit: Option<usize>, cursor: Option<String>) -> Self {
        Self {
            limit,
            cursor,
            since: None,
        }
    }

    /// Since when, in milliseconds since 1970.
    pub fn since(&self) -> Result<Option<i64>, ApiError> {
        self.since.as_deref().map(since).transpose()
    }

    /// The least id of this kind that is wanted.
    pub fn least(&self, kind: char) -> Result<String, ApiError> {
        let since = self.since()?;
        Ok(since.map_or_else(String::new, |since| crate::ids::first_of(kind, since)))
    }

    pub fn limit(&self) -> Result<usize, ApiError> {
        match self.limit {
            None => Ok(LIMIT),
            Some(limit @ 1..=MOST) => Ok(limit),
            Some(_) => Err(ApiError::bad_request(format!(
                "`limit` must be a number from 1 to {MOST}"
            ))),
        }
    }

    pub fn cursor(&self) -> Option<String> {
        self.cursor.clone()
    }
}

impl<T> Page<T> {
    /// Builds a page from up to one row more than it holds; the extra row shows that there is another
    /// page.
    pub fn new(mut items: Vec<T>, limit: usize, cursor: impl Fn(&T) -> String) -> Self {
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(cursor);
        Self { items, next }
    }

    /// The part of a list that is wanted: `name` is that by which the list is sorted.
    pub fn by_name(
        all: impl IntoIterator<Item = T>,
        query: NamesQuery,
        name: impl Fn(&T) -> &str,
    ) -> Result<Self, ApiError> {
        let (limit, after) = query.page()?;
        let is_after = |it: &T| after.as_deref().is_none_or(|after| name(it) > after);
        let wanted = all.into_iter().filter(is_after).take(limit + 1).collect();
        Ok(Self::new(wanted, limit, |it| name(it).to_owned()))
    }

    /// A list that is short enough to be returned whole.
    pub fn whole(items: Vec<T>) -> Self {
        Self { items, next: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_by_name_goes_on_after_the_last_of_the_page() {
        let page = |limit, cursor: Option<&str>| {
            let (cursor, all) = (cursor.map(str::to_owned), ["a", "b", "c"]);
            let page = Page::by_name(all, NamesQuery { limit, cursor }, |it| it);
            page.map(|page| (page.items, page.next)).ok()
        };
        assert_eq!(page(None, None), Some((vec!["a", "b", "c"], None)));
        assert_eq!(
            page(Some(2), None),
            Some((vec!["a", "b"], Some("b".into())))
        );
        assert_eq!(page(Some(2), Some("b")), Some((vec!["c"], None)));
        assert_eq!(page(Some(2), Some("bb")), Some((vec!["c"], None)), "gone");
        assert_eq!(page(Some(0), None), None);
    }
}
