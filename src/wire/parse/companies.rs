//! Companies: the requests that read or change a company, its ceiling or its restrictions.

use super::raw_write_options;
use crate::authority::{CompanyChange, NewCompany, RestoreGrants, Restriction, WriteOptions};
use crate::policy::id::CompanyId;
use crate::policy::revision::Revision;
use crate::proto;
use crate::wire::validate::{
    FieldValidator, InvalidRequest, MAX_CHANGE_SCOPES, MAX_LABEL, RawWriteOptions,
};

type CompanyCall = (CompanyId, CompanyChange, WriteOptions);

fn company_call(
    mut fields: FieldValidator,
    company: String,
    change: CompanyChange,
    options: RawWriteOptions,
) -> Result<CompanyCall, InvalidRequest> {
    let company = fields.company(company);
    let options = fields.write_options(options);
    fields.finish(company.map(|company| (company, change, options)))
}

pub(crate) fn add_company_scopes(
    mut request: proto::AddCompanyScopesRequest,
) -> Result<CompanyCall, InvalidRequest> {
    let mut fields = FieldValidator::default();
    let options = raw_write_options!(request);
    let change = CompanyChange::AddScopes(fields.some_scopes(request.scopes));
    company_call(fields, request.company_id, change, options)
}

pub(crate) fn update_company(
    mut request: proto::UpdateCompanyRequest,
) -> Result<CompanyCall, InvalidRequest> {
    let mut fields = FieldValidator::default();
    let options = raw_write_options!(request);
    let paths = fields.mask(request.update_mask, &["display_name", "enabled"]);
    let masked = |path: &str| paths.iter().any(|p| p == path);
    let display_name = fields.line("display_name", request.display_name, MAX_LABEL);
    let change = CompanyChange::Update {
        display_name: masked("display_name").then_some(display_name),
        enabled: masked("enabled").then_some(request.enabled),
    };
    company_call(fields, request.company_id, change, options)
}

pub(crate) fn delete_company(
    mut request: proto::DeleteCompanyRequest,
) -> Result<CompanyCall, InvalidRequest> {
    let options = raw_write_options!(request);
    company_call(FieldValidator::default(), request.company_id, CompanyChange::Delete, options)
}

pub(crate) fn restrict(
    mut request: proto::RestrictCompanyScopesRequest,
) -> Result<(Restriction, WriteOptions), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let options = raw_write_options!(request);
    let options = fields.write_options(options);
    let company = fields.company(request.company_id);
    let scopes = fields.some_scopes(request.scopes);
    let acknowledge_impact = request.acknowledge_impact;
    let restriction = company.map(|company| Restriction { company, scopes, acknowledge_impact });
    fields.finish(restriction.map(|restriction| (restriction, options)))
}

pub(crate) fn restore(
    mut request: proto::RestoreGrantsRequest,
) -> Result<(RestoreGrants, WriteOptions), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let options = raw_write_options!(request);
    let options = fields.write_options(options);
    let company = fields.company(request.company_id);
    let scopes = fields.some_scopes(request.scopes);
    let restricted_at = Revision(request.restricted_at_revision);
    if restricted_at == Revision::ZERO {
        fields.wrong("restricted_at_revision", "must be the revision of the restriction");
    }
    let restore = company.map(|company| RestoreGrants { company, scopes, restricted_at });
    fields.finish(restore.map(|restore| (restore, options)))
}

pub(crate) fn create_company(
    mut request: proto::CreateCompanyRequest,
) -> Result<(NewCompany, WriteOptions), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let options = raw_write_options!(request);
    let options = fields.write_options(options);
    let new = new_company(&mut fields, request.company_id, request.display_name, request.scopes);
    fields.finish(new.map(|new| (new, options)))
}

pub(super) fn new_company(
    fields: &mut FieldValidator,
    id: String,
    display_name: String,
    scopes: Option<proto::Scopes>,
) -> Option<NewCompany> {
    let id = fields.new_company(id);
    let display_name = fields.line("display_name", display_name, MAX_LABEL);
    let scopes = scopes.map(|s| fields.scopes("scopes.names", s.names, MAX_CHANGE_SCOPES));
    Some(NewCompany { id: id?, display_name, scopes })
}

pub(crate) fn company(text: String) -> Result<CompanyId, InvalidRequest> {
    let mut fields = FieldValidator::default();
    let id = fields.company(text);
    fields.finish(id)
}

pub(crate) fn optional_company(text: Option<String>) -> Result<Option<CompanyId>, InvalidRequest> {
    match text.filter(|text| !text.is_empty()) {
        Some(text) => company(text).map(Some),
        None => Ok(None),
    }
}
