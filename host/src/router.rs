//! Step 2: from (authority, method, path) to a target.
//!
//! A [`RouteTable`] is immutable. Every change of the control plane builds a new
//! one and swaps it in whole; a request that is in flight keeps what it found.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use crate::model::ids::{FunctionId, RevisionNumber, TenantName};
use crate::model::route::{RoutePattern, Segment};

/// The current table, read by every request.
pub struct Router<T> {
    table: ArcSwap<RouteTable<T>>,
}

impl<T: Clone> Default for Router<T> {
    fn default() -> Self {
        Self { table: ArcSwap::from_pointee(RouteTable::default()) }
    }
}

impl<T: Clone> Router<T> {
    /// The table as it is now.
    pub fn load(&self) -> Guard<Arc<RouteTable<T>>> {
        self.table.load()
    }

    /// Makes a table the one that new requests see.
    pub fn swap(&self, table: RouteTable<T>) {
        self.table.store(Arc::new(table));
    }
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<T> {
    /// The target.
    pub target: T,
    /// Length of the part of the path that is not the function's business: its
    /// own URL's prefix, or 0 for a declared route.
    pub prefix_bytes: usize,
    /// The parts of the path that a declared route gives names to.
    pub parameters: Option<Arc<[Parameter]>>,
}

/// A part of the path that a route gives a name to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: Box<str>,
    /// Which segment of the path it is, from 0.
    pub segment: usize,
    /// Whether it is this segment and all after it.
    pub rest: bool,
}

fn parameters(route: &RoutePattern) -> Option<Arc<[Parameter]>> {
    let named = route.segments.iter().enumerate().filter_map(|(segment, part)| match part {
        Segment::Literal(_) => None,
        Segment::Parameter(name) => Some(Parameter { name: name.clone(), segment, rest: false }),
        Segment::Wildcard(name) => Some(Parameter { name: name.clone(), segment, rest: true }),
    });
    let named: Arc<[Parameter]> = named.filter(|parameter| !parameter.name.is_empty()).collect();
    (!named.is_empty()).then_some(named)
}

/// A function's revisions, for its own URLs.
#[derive(Debug, Clone)]
pub struct Own<T> {
    /// What `/{function}/…` leads to.
    pub active: Option<T>,
    /// What `/{function}:{revision}/…` leads to.
    pub revisions: Vec<(RevisionNumber, T)>,
}

/// All routes at one moment.
#[derive(Debug)]
pub struct RouteTable<T> {
    /// By the path's start without its slash: `name`, or `@tenant/name`.
    own: HashMap<Box<str>, Own<T>>,
    /// Declared routes that name an authority.
    by_authority: HashMap<Box<str>, Node<T>>,
    /// Declared routes that do not.
    any_authority: Node<T>,
}

impl<T> Default for RouteTable<T> {
    fn default() -> Self {
        Self { own: HashMap::new(), by_authority: HashMap::new(), any_authority: Node::default() }
    }
}

/// What follows a path prefix in declared routes.
#[derive(Debug)]
struct Node<T> {
    literals: HashMap<Box<str>, Node<T>>,
    parameter: Option<Box<Node<T>>>,
    wildcard: Vec<Entry<T>>,
    here: Vec<Entry<T>>,
}

/// The end of a declared route.
#[derive(Debug)]
struct Entry<T> {
    method: Option<Box<str>>,
    target: T,
    parameters: Option<Arc<[Parameter]>>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self { literals: HashMap::new(), parameter: None, wildcard: Vec::new(), here: Vec::new() }
    }
}

impl<T: Clone> RouteTable<T> {
    /// Adds a function's own URLs.
    pub fn insert_own(&mut self, id: &FunctionId, own: Own<T>) {
        self.own.insert(id.to_string().into(), own);
    }

    /// A function's own targets.
    #[must_use]
    pub fn own(&self, id: &FunctionId) -> Option<&Own<T>> {
        self.own.get(id.to_string().as_str())
    }

    /// Adds a declared route.
    pub fn insert(&mut self, route: &RoutePattern, target: T) {
        let mut node = match &route.authority {
            Some(authority) => self.by_authority.entry(authority.clone()).or_default(),
            None => &mut self.any_authority,
        };
        let entry = Entry { method: route.method.clone(), target, parameters: parameters(route) };
        for segment in &route.segments {
            node = match segment {
                Segment::Literal(text) => node.literals.entry(text.clone()).or_default(),
                Segment::Parameter(_) => node.parameter.get_or_insert_default(),
                Segment::Wildcard(_) => return node.wildcard.push(entry),
            };
        }
        node.here.push(entry);
    }

    /// The most specific target of a request: a route with an authority before
    /// one without, text before a parameter before a wildcard at the first
    /// place where two differ, and a method before any method. A function's own
    /// URL counts as the text of its name and a wildcard.
    #[must_use]
    pub fn find(&self, authority: &str, method: &str, path: &str) -> Option<Found<T>> {
        let rest = path.strip_prefix('/')?;
        let declared = |entry: &Entry<T>| Found {
            target: entry.target.clone(),
            prefix_bytes: 0,
            parameters: entry.parameters.clone(),
        };
        if !self.by_authority.is_empty() {
            let lower = authority.to_ascii_lowercase();
            let host = lower.rsplit_once(':').map_or(lower.as_str(), |(host, _)| host);
            let by_authority =
                self.by_authority.get(lower.as_str()).or_else(|| self.by_authority.get(host));
            if let Some(entry) = by_authority.and_then(|node| node.find(method, rest)) {
                return Some(declared(entry));
            }
        }
        let (first, after) = match rest.split_once('/') {
            Some((first, after)) => (first, Some(after)),
            None => (rest, None),
        };
        let named = self.any_authority.literals.get(first);
        if let Some(entry) = named.and_then(|node| node.find_after(method, after)) {
            return Some(declared(entry));
        }
        self.find_own(rest, first)
            .or_else(|| self.any_authority.find_unnamed(method, rest, after).map(declared))
    }

    fn find_own(&self, rest: &str, first: &str) -> Option<Found<T>> {
        let key = if first.starts_with('@') {
            // `/@tenant/function/…`: the key has two segments.
            let second = rest.get(first.len() + 1..)?.split('/').next()?;
            rest.get(..first.len() + 1 + second.len())?
        } else {
            first
        };
        let (name, revision) = match key.rsplit_once(':') {
            Some((name, revision)) => (name, Some(revision.parse::<RevisionNumber>().ok()?)),
            None => (key, None),
        };
        // `@default/name` would be a second name of the same function.
        let default = TenantName::default();
        if name.strip_prefix('@').is_some_and(|rest| rest.starts_with(&format!("{default}/"))) {
            return None;
        }
        let own = self.own.get(name)?;
        let target = match revision {
            None => own.active.as_ref()?,
            Some(number) => {
                let found = own.revisions.iter().find(|(candidate, _)| *candidate == number);
                &found?.1
            }
        };
        Some(Found { target: target.clone(), prefix_bytes: 1 + key.len(), parameters: None })
    }
}

fn by_method<'a, T>(entries: &'a [Entry<T>], method: &str) -> Option<&'a Entry<T>> {
    let exact = entries.iter().find(|entry| entry.method.as_deref() == Some(method));
    exact.or_else(|| entries.iter().find(|entry| entry.method.is_none()))
}

impl<T> Node<T> {
    /// Finds the rest of a path, which is what follows the next slash.
    fn find(&self, method: &str, rest: &str) -> Option<&Entry<T>> {
        let (segment, after) = match rest.split_once('/') {
            Some((segment, after)) => (segment, Some(after)),
            None => (rest, None),
        };
        let literal = self.literals.get(segment).and_then(|node| node.find_after(method, after));
        literal.or_else(|| self.find_unnamed(method, rest, after))
    }

    /// Finds what follows a segment that led to this node.
    fn find_after(&self, method: &str, after: Option<&str>) -> Option<&Entry<T>> {
        match after {
            Some(after) => self.find(method, after),
            None => by_method(&self.here, method)
                // `/files` is `/files/{*path}` with nothing after it.
                .or_else(|| by_method(&self.wildcard, method)),
        }
    }

    /// As [`Self::find`], passing over literal segments.
    fn find_unnamed(&self, method: &str, rest: &str, after: Option<&str>) -> Option<&Entry<T>> {
        let parameter = match rest.split('/').next() {
            Some("") | None => None,
            Some(_) => self.parameter.as_ref().and_then(|node| node.find_after(method, after)),
        };
        parameter.or_else(|| by_method(&self.wildcard, method))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(routes: &[&str], functions: &[&str]) -> RouteTable<String> {
        let mut table = RouteTable::default();
        for route in routes {
            table.insert(&route.parse().unwrap(), (*route).to_owned());
        }
        for name in functions {
            let id = match name.strip_prefix('@').and_then(|name| name.split_once('/')) {
                Some((tenant, name)) => {
                    FunctionId { tenant: tenant.parse().unwrap(), name: name.parse().unwrap() }
                }
                None => FunctionId { tenant: TenantName::default(), name: name.parse().unwrap() },
            };
            let revisions = vec![(RevisionNumber(1), format!("{name}:1"))];
            table.insert_own(&id, Own { active: Some((*name).to_owned()), revisions });
        }
        table
    }

    fn found(table: &RouteTable<String>, request: &str) -> String {
        let (method, url) = request.split_once(' ').unwrap();
        let slash = url.find('/').unwrap();
        let (authority, path) = url.split_at(slash);
        match table.find(authority, method, path) {
            Some(found) => format!("{} {}", found.target, &path[found.prefix_bytes..]),
            None => "none".to_owned(),
        }
    }

    #[test]
    fn the_most_specific_route_wins() {
        let table = table(
            &[
                "/users/{id}",
                "GET /users/{id}",
                "/users/me",
                "/files/{*path}",
                "/{*rest}",
                "api.example.com/*",
                "api.example.com:8080/users/{id}",
                "/hello/special",
                "/{any}/x",
            ],
            &["hello", "@acme/hello"],
        );
        for (request, expected) in [
            ("GET /users/7", "GET /users/{id} /users/7"),
            ("POST /users/7", "/users/{id} /users/7"),
            ("GET /users/me", "/users/me /users/me"),
            ("GET /users/", "/{*rest} /users/"),
            ("GET /users/7/x", "/{*rest} /users/7/x"),
            ("GET /files", "/files/{*path} /files"),
            ("GET /files/", "/files/{*path} /files/"),
            ("GET /files/a/b", "/files/{*path} /files/a/b"),
            ("GET /", "/{*rest} /"),
            ("GET /zzz/x", "/{any}/x /zzz/x"),
            ("GET api.example.com/users/7", "api.example.com/* /users/7"),
            ("GET API.example.com:8080/users/7", "api.example.com:8080/users/{id} /users/7"),
            ("GET api.example.com:9/q", "api.example.com/* /q"),
            ("GET /hello", "hello "),
            ("GET /hello/", "hello /"),
            ("GET /hello/x", "hello /x"),
            ("GET /hello/special", "/hello/special /hello/special"),
            ("GET /hello:1/a", "hello:1 /a"),
            ("GET /hello:2/a", "/{*rest} /hello:2/a"),
            ("GET /@acme/hello/a/b", "@acme/hello /a/b"),
            ("GET /@acme/hello:1", "@acme/hello:1 "),
            ("GET /@default/hello/", "/{*rest} /@default/hello/"),
        ] {
            assert_eq!(found(&table, request), expected, "{request}");
        }
    }

    #[test]
    fn the_names_of_a_route_are_found_with_it() {
        let table = table(&["/u/{id}/{*rest}", "/u/*", "/files"], &["u"]);
        let named = |path: &str| {
            let found = table.find("", "GET", path).unwrap();
            let parameters = found.parameters.iter().flat_map(|all| all.iter());
            parameters.map(|parameter| parameter.name.to_string()).collect::<Vec<String>>()
        };
        assert_eq!(named("/u/7/a/b"), ["id", "rest"]);
        assert_eq!(named("/u/"), [""; 0]);
        assert_eq!(named("/files"), [""; 0]);
    }

    #[test]
    fn nothing_matches_nothing() {
        let table = table(&["GET /only"], &["hello"]);
        for request in ["POST /only", "GET /onl", "GET /helloo", "GET /hello:x/", "GET /@a"] {
            assert_eq!(found(&table, request), "none", "{request}");
        }
        assert_eq!(table.find("", "OPTIONS", "*"), None);
    }
}
