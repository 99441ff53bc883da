//! Catalog: no file makes the parser panic. An accepted catalog can be applied, become a company's
//! ceiling, be stored, and be read back unchanged.
#![no_main]

use libfuzzer_sys::fuzz_target;
use scopegate::policy::catalog::Catalog;
use scopegate::policy::catalog::difference::CatalogDifference;
use scopegate::policy::company::Company;
use scopegate::policy::id::CompanyId;
use scopegate::policy::revision::Revision;
use scopegate::store::{Fact, FactKey, fuzz};

fuzz_target!(|bytes: &[u8]| {
    let Ok(yaml) = std::str::from_utf8(bytes) else { return };
    let mut catalog = match Catalog::empty().replaced_by(yaml) {
        Ok(catalog) => catalog,
        Err(errors) => {
            assert!(!errors.0.is_empty(), "refused without a reason");
            // A carriage return alone ends a line, too (YAML 1.2 section 5.4).
            let ends = yaml.matches(['\n', '\r']).count() as u64;
            let lines = ends + 1;
            let placed = errors.0.iter().all(|e| (1..=lines).contains(&e.line) && e.column > 0);
            assert!(placed, "{errors}");
            return;
        }
    };
    catalog.revision = Revision(7);
    let same = |other: &Catalog| {
        assert_eq!(catalog.difference(other), CatalogDifference::default());
        assert_eq!(other.difference(&catalog), CatalogDifference::default());
        assert_eq!(catalog.scope_id_map(), other.scope_id_map());
        assert_eq!(catalog.yaml, other.yaml);
    };
    same(&catalog);
    same(&catalog.replaced_by(yaml).expect("an applied catalog can be applied again"));
    let bytes = fuzz::fact_bytes(&Fact::Catalog(catalog.clone().into()));
    let Some(Fact::Catalog(kept)) = fuzz::fact(&FactKey::Catalog, Revision(7), &bytes) else {
        panic!("a stored catalog does not read back")
    };
    same(&kept);
    for issuer in catalog.issuers() {
        for iss in [&issuer.name].into_iter().chain(&issuer.aliases) {
            assert_eq!(catalog.issuer(iss), Some(issuer), "a name or an alias is of one issuer");
        }
        assert!(!issuer.terms().is_empty());
    }
    drop(catalog.issuer_warnings());
    // A new company gets every scope of the catalog, closed under implication (D4).
    let all: Vec<_> = catalog.scope_ids().collect();
    let id = CompanyId::parse("acme").expect("an id");
    let time = jiff::Timestamp::UNIX_EPOCH;
    let company = Company::create(id, String::new(), &catalog, None, time).after;
    assert_eq!(company.ceiling.len(), all.len());
    assert_eq!(company.view(&catalog).ceiling.len(), all.len());
    for scope in all.iter().take(50) {
        for below in catalog.closure(&[*scope]) {
            assert!(catalog.implying_closure(&[below]).contains(scope), "both ways the same");
        }
        assert_eq!(catalog.name(*scope).and_then(|name| catalog.id(name)), Some(*scope));
    }
});
