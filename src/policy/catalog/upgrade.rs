//! Upgrade: notices about a catalog in force whose endpoints match differently than in the version
//! that applied it.

use super::endpoint::{Template, TemplateErrorKind, check_method};
use super::file::CatalogFile;
use crate::policy::text;

/// The most endpoints that a sentence names.
const EXAMPLES: usize = 5;

/// EndpointTree of one kind: how many there are, and the first of them.
#[derive(Default)]
struct AffectedEndpoints<'a> {
    count: usize,
    first: Vec<&'a str>,
}

impl<'a> AffectedEndpoints<'a> {
    fn add(&mut self, endpoint: &'a str) {
        self.count += 1;
        if self.first.len() < EXAMPLES {
            self.first.push(endpoint);
        }
    }

    fn sentence(&self, what: &str) -> Option<String> {
        let names: Vec<_> =
            self.first.iter().map(|name| format!("`{}`", text::quoted(name, 160))).collect();
        let more = if self.count > names.len() { ", …" } else { "" };
        (self.count > 0).then(|| format!("{what}: {} ({}{more})", self.count, names.join(", ")))
    }
}

/// One sentence for each kind of endpoints that the rules for paths and methods decide otherwise
/// than before they knew `colon_in`, `{x}:verb`, `{x+}`, case and `HEAD`.
pub(super) fn upgrade_notices(file: &CatalogFile) -> Vec<String> {
    let (mut colons, mut cases, mut twins, mut rests) = (
        AffectedEndpoints::default(),
        AffectedEndpoints::default(),
        AffectedEndpoints::default(),
        AffectedEndpoints::default(),
    );
    let (mut methods, mut foreign) = (AffectedEndpoints::default(), AffectedEndpoints::default());
    let (mut semicolons, mut never) = (AffectedEndpoints::default(), AffectedEndpoints::default());
    let mut heads = 0_usize;
    for name in file.endpoints_by_name.keys() {
        let Some((method, path)) = name.split_once(' ') else { continue };
        let Ok(mut template) = Template::parse_stored(path) else { continue };
        for parameter in file.colon_in.get(name).into_iter().flatten() {
            // The file was read, so the template has it.
            let _ = template.allow_colon(parameter);
        }
        if !template.allows_all_colons() {
            colons.add(name);
        }
        if file.endpoints.has_case_variant_of_parameter(method, &template) {
            cases.add(name);
        }
        if file.endpoints.has_ambiguous_literal(method, &template) {
            twins.add(name);
        }
        if template.has_rest() {
            rests.add(name);
        }
        if check_method(method).is_err() {
            methods.add(name);
        }
        match Template::parse(path).map_err(|error| error.kind) {
            Ok(_) => {}
            Err(TemplateErrorKind::Semicolon(_) | TemplateErrorKind::Path(_)) => never.add(name),
            Err(_) => foreign.add(name),
        }
        if path.rsplit_once('/').is_some_and(|(before, _)| before.contains('{')) {
            semicolons.add(name);
        }
        heads += usize::from(method == "GET" && !file.endpoints.has_shape("HEAD", &template));
    }
    let heads = (heads > 0).then(|| {
        format!("`HEAD` is answered by the endpoint of `GET` where no endpoint for `HEAD` matches; endpoints for `GET` alone: {heads}")
    });
    let sentences = [
        colons.sentence("a parameter no longer matches a segment with an unencoded `:` unless the endpoint's `colon_in` names it; endpoints with such a parameter"),
        cases.sentence("a segment that is a literal in another case no longer matches the parameter beside it; endpoints with such a literal"),
        twins.sentence("literals that differ only by case are matched exactly as before, and refused when the catalog is next applied; endpoints with such a literal"),
        rests.sentence("a last `{name+}` matches the rest of the path, where it matched one segment; endpoints with it"),
        heads,
        methods.sentence("a standard method that is not in upper case matches no call, as before, and a word for every method neither; both are refused when the catalog is next applied; endpoints with such a method"),
        semicolons.sentence("a path with a `;` before its last segment no longer matches, and a `/`, `\\` or `.` that is encoded twice is malformed; endpoints with a parameter before the last segment"),
        never.sentence("a template with a `;` before its last segment, or with a twice encoded character, matches no call any more; endpoints with such a template"),
        foreign.sentence("a template that is written as for another tool matches what it did, and is refused when the catalog is next applied; endpoints with one"),
    ];
    sentences.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(endpoints: &[&str]) -> Vec<String> {
        let lines = endpoints.iter().map(|line| {
            let (method, rest) = line.split_once(' ').expect("two parts");
            format!("  - {{ method: {method}, path: {rest}, scopes: [a] }}\n")
        });
        let yaml = format!("scopes: {{ a: }}\nendpoints:\n{}", lines.collect::<String>());
        upgrade_notices(&CatalogFile::parse_stored(&yaml).expect("a catalog in force"))
    }

    #[test]
    fn each_kind_of_endpoint_that_is_decided_otherwise_has_its_sentence() {
        let said = said(&[
            "GET \"/users/{id}\"",
            "HEAD \"/users/{name}\"",
            "GET /users/export",
            "GET \"/groups/{id}\", colon_in: [id]",
            "POST /a/export",
            "POST /a/EXPORT",
            "PUT \"/files/{path+}\"",
            "post /b",
            "ANY /b",
            "PUT \"/b/*\"",
            "PUT \"/c/{*all}\"",
            "POST \"/users/{id}/photo\", colon_in: [id]",
            "POST /d;v=1/e",
        ]);
        let ends = [
            "parameter: 4 (`GET /users/{id}`, `HEAD /users/{name}`, `PUT /c/{*all}`, `PUT /files/{path+}`)",
            "with such a literal: 1 (`GET /users/export`)",
            "with such a literal: 2 (`POST /a/EXPORT`, `POST /a/export`)",
            "with it: 1 (`PUT /files/{path+}`)",
            "endpoints for `GET` alone: 2",
            "with such a method: 2 (`ANY /b`, `post /b`)",
            "before the last segment: 1 (`POST /users/{id}/photo`)",
            "with such a template: 1 (`POST /d;v=1/e`)",
            "with one: 2 (`PUT /b/*`, `PUT /c/{*all}`)",
        ];
        assert_eq!(said.len(), ends.len(), "{said:#?}");
        for (sentence, end) in said.iter().zip(ends) {
            assert!(sentence.ends_with(end), "{sentence}");
        }
    }

    #[test]
    fn a_catalog_of_plain_paths_is_decided_as_before() {
        assert!(said(&["POST /users", "GRPC /pkg.Service/Method"]).is_empty());
    }

    #[test]
    fn notices_are_bounded() {
        let many: Vec<_> =
            (0..1_000).map(|n| format!("POST \"/{n}/{{{}}}\"", "x".repeat(2_000))).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        let said = said(&many);
        assert_eq!(said.len(), 1);
        assert!(said[0].len() < 2_000 && said[0].contains(": 1000 (") && said[0].ends_with(", …)"));
    }
}
