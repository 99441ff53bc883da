//! Build script: compiles the `.proto` files of the API, of the store's records, of the log and the
//! calls of replicas, of the part of etcd's API that scopegate calls and of the part of Envoy's API that it
//! serves, and generates the table of operations from the options of the methods.

use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use protox::prost_reflect::prost_types::source_code_info::Location;
use protox::prost_reflect::prost_types::{DescriptorProto, FileDescriptorSet};
use protox::prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, MessageDescriptor, MethodDescriptor,
    ReflectMessage, Value,
};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    // In this order the table of operations has the services: `Check` is the first method.
    let wire = ["authorization", "directory", "catalog", "change", "key", "backup"]
        .map(|file| format!("scopegate/v1/{file}.proto"));
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_source_info(true).include_imports(true).open_files(&wire)?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // Server reflection returns these descriptors. Only this encoding keeps the options of methods.
    fs::write(out.join("scopegate.v1.bin"), compiler.encode_file_descriptor_set())?;
    fs::write(out.join("operations.rs"), operations(&compiler.descriptor_pool(), &wire)?)?;
    // With its full name, a message type finds its descriptor.
    let mut messages = prost_build::Config::new();
    messages.enable_type_names();
    // The server counts the lists of a request before it decodes it.
    tonic_prost_build::configure()
        .build_server(false)
        .compile_fds_with_config(compiler.file_descriptor_set(), messages)?;

    let records = ["store/v1/store", "replica/v1/replica", "replica/v1/peer"];
    let records = records.map(|file| format!("scopegate/{file}.proto"));
    let records = protox::compile(records, ["proto"])?;
    tonic_prost_build::configure().build_server(false).compile_fds(records)?;

    // Values are shared with the message that was received, not copied out of it.
    let etcd = protox::compile(["etcd/etcd.proto"], ["proto"])?;
    tonic_prost_build::configure().build_server(false).bytes(".etcdserverpb").compile_fds(etcd)?;

    let mut envoy = protox::Compiler::new(["proto"])?;
    envoy.include_source_info(true).include_imports(true);
    envoy.open_files(["envoy/service/auth/v3/external_auth.proto"])?;
    fs::write(out.join("envoy.bin"), envoy.encode_file_descriptor_set())?;
    let mut messages = prost_build::Config::new();
    messages.enable_type_names();
    tonic_prost_build::configure()
        .build_server(false)
        .compile_fds_with_config(with_maps_as_lists(envoy.file_descriptor_set()), messages)?;
    Ok(())
}

/// The same messages, with a list of entries for each map. Both have the same bytes, but of a key that is
/// there twice a map keeps one value only.
fn with_maps_as_lists(mut files: FileDescriptorSet) -> FileDescriptorSet {
    // The numbers of the fields of descriptors, of which the path of a comment is made.
    const MESSAGE: i32 = 4;
    const NESTED: i32 = 3;
    const FIELD: i32 = 2;
    fn of_message(message: &mut DescriptorProto, path: Vec<i32>, comments: &mut Vec<Location>) {
        let mut describe = |path: &[i32], text: &str| {
            let (path, leading_comments) = (path.to_vec(), Some(text.to_owned()));
            comments.push(Location {
                path,
                span: vec![0, 0, 0],
                leading_comments,
                ..Default::default()
            });
        };
        if let Some(options) = message.options.as_mut().filter(|options| options.map_entry()) {
            options.map_entry = None;
            describe(&path, "An entry of a map.");
            for (index, text) in ["The key.", "The value."].into_iter().enumerate() {
                describe(&[&path[..], &[FIELD, index as i32]].concat(), text);
            }
        }
        for (index, nested) in message.nested_type.iter_mut().enumerate() {
            of_message(nested, [&path[..], &[NESTED, index as i32]].concat(), comments);
        }
    }
    for file in files.file.iter_mut().filter(|file| file.package().starts_with("envoy.")) {
        let mut comments = Vec::new();
        for (index, message) in file.message_type.iter_mut().enumerate() {
            of_message(message, vec![MESSAGE, index as i32], &mut comments);
        }
        file.source_code_info.get_or_insert_default().location.extend(comments);
    }
    files
}

/// The Rust code of the table of operations, and for each request message its operation and its
/// companies. `src/wire/access.rs` includes it.
fn operations(pool: &DescriptorPool, files: &[String]) -> Result<String, Box<dyn Error>> {
    let (mut code, mut names) = (String::new(), Vec::new());
    for file in files.iter().filter_map(|file| pool.get_file_by_name(file)) {
        for service in file.services() {
            for method in service.methods() {
                let declared = Declared::of(pool, &method)
                    .map_err(|problem| format!("{}: {problem}", method.full_name()))?;
                let name = constant(&format!("{}{}", service.name(), method.name()));
                let path = format!("/{}/{}", service.full_name(), method.name());
                let request = format!("proto::{}", method.input().name());
                let request = match method.is_client_streaming() {
                    true => format!("tonic::Streaming<{request}>"),
                    false => request,
                };
                let Declared { roles, effect, companies, is_rated, is_logged } = declared;
                let reads_page = method.input().get_field_by_name("page_size").is_some();
                let (index, is_stream) = (names.len(), method.is_client_streaming());
                write!(
                    code,
                    "static {name}: Operation = Operation {{ path: {path:?}, index: {index}, \
                     roles: {roles}, effect: Effect::{effect}, reads_page: {reads_page}, \
                     is_stream: {is_stream}, is_rated: {is_rated}, is_logged: {is_logged} }};\n\
                     impl CompanyScoped for {request} {{\n\
                     const OPERATION: &'static Operation = &{name};\n\
                     fn companies(&self) -> Companies<'_> {{ {companies} }}\n}}\n"
                )?;
                names.push(name);
            }
        }
    }
    let (count, list) = (names.len(), names.join(", &"));
    write!(
        code,
        "/// The operations of all methods of the services of scopegate; the first one is `Check`.\n\
         pub static OPERATIONS: [&Operation; {count}] = [&{list}];\n"
    )?;
    Ok(code)
}

/// The option `operation` of a method, as Rust code.
struct Declared {
    roles: String,
    effect: &'static str,
    companies: String,
    is_rated: bool,
    is_logged: bool,
}

impl Declared {
    fn of(pool: &DescriptorPool, method: &MethodDescriptor) -> Result<Self, Box<dyn Error>> {
        let option = pool.get_extension_by_name("scopegate.v1.operation");
        let option = option.ok_or("there is no option `operation`")?;
        let options = method.options();
        if !options.has_extension(&option) {
            return Err("declare `option (operation)`".into());
        }
        let options = options.get_extension(&option);
        let operation = options.as_message().ok_or("the option is not a message")?;
        let is_set = |name| field(operation, name).and_then(|value| value.as_bool());
        let roles = match (roles(operation)?, is_set("any_caller")) {
            (roles, Some(false)) if !roles.is_empty() => format!("Roles::NONE{}", roles.concat()),
            (roles, Some(true)) if roles.is_empty() => "Roles::ALL".to_owned(),
            _ => return Err("set either `roles` or `any_caller`".into()),
        };
        let path =
            field(operation, "company_field").and_then(|path| path.as_str().map(str::to_owned));
        let path = path.filter(|path| !path.is_empty());
        let may_omit = is_set("may_omit_company") == Some(true);
        let companies = match (path, is_set("all_companies"), is_set("any_caller")) {
            (Some(path), Some(false), _) => companies(method, &path, may_omit)?,
            (None, Some(true), _) => "Companies::All".to_owned(),
            (None, Some(false), Some(true)) => "Companies::None".to_owned(),
            _ => return Err("set either `company_field` or `all_companies`".into()),
        };
        let effect = field(operation, "effect").and_then(|value| value.as_enum_number());
        let effect = match effect {
            Some(0) => "Read",
            Some(1) => "Change",
            Some(2) => "Removal",
            _ => return Err("the effect is unknown to the build script".into()),
        };
        let is_rated = is_set("no_rate_limit") == Some(false);
        let is_logged = is_set("no_access_log") == Some(false);
        Ok(Self { roles, effect, companies, is_rated, is_logged })
    }
}

fn field(message: &DynamicMessage, name: &str) -> Option<Value> {
    message.get_field_by_name(name).map(|value| value.into_owned())
}

/// A call of `Roles::with` for each role.
fn roles(operation: &DynamicMessage) -> Result<Vec<String>, Box<dyn Error>> {
    let roles = field(operation, "roles").ok_or("the option has no roles")?;
    let role = |value: &Value| {
        let kind = operation.descriptor().get_field_by_name("roles")?.kind();
        let name = kind.as_enum()?.get_value(value.as_enum_number()?)?.name().to_owned();
        let words = name.strip_prefix("ROLE_")?.split('_');
        let capitalized = words.map(|word| format!("{}{}", &word[..1], word[1..].to_lowercase()));
        Some(format!(".with(Role::{})", capitalized.collect::<String>()))
    };
    let roles = roles.as_list().unwrap_or_default().iter().map(role).collect::<Option<_>>();
    Ok(roles.ok_or("a role has no name")?)
}

/// The expression of the companies that a request names in the field of this path.
fn companies(
    method: &MethodDescriptor,
    path: &str,
    may_omit: bool,
) -> Result<String, Box<dyn Error>> {
    let find = |message: &MessageDescriptor, name: &str| {
        let field = message.get_field_by_name(name);
        field.ok_or_else(|| format!("`{path}` is not a field of the request"))
    };
    let is_optional = |field: &FieldDescriptor| field.supports_presence();
    let (outer, inner) = path.split_once('.').unwrap_or((path, ""));
    let first = find(&method.input(), outer)?;
    let message = first.kind().as_message().cloned();
    if let Some(message) = &message
        && is_optional(&find(message, inner)?)
    {
        return Err(format!("`{path}` must not be optional").into());
    }
    Ok(match (message, first.is_list(), is_optional(&first), may_omit) {
        _ if method.is_client_streaming() => return Err("a stream names no company".into()),
        (None, false, false, false) => format!("Companies::One(&self.{outer})"),
        (None, false, false, true) => format!(
            "if self.{outer}.is_empty() {{ Companies::None }} else {{ Companies::One(&self.{outer}) }}"
        ),
        // Without a company, the call concerns all.
        (None, false, true, false) => {
            format!("self.{outer}.as_deref().map_or(Companies::All, Companies::One)")
        }
        // Without the message, the request is malformed; the parser rejects it.
        (Some(_), false, _, false) => format!(
            "self.{outer}.as_ref().map_or(Companies::None, |of| Companies::One(&of.{inner}))"
        ),
        (Some(_), false, _, true) => format!(
            "match &self.{outer} {{ Some(of) if !of.{inner}.is_empty() => Companies::One(&of.{inner}), \
             _ => Companies::None }}"
        ),
        (Some(_), true, _, false) => {
            format!("Companies::Each(self.{outer}.iter().map(|of| of.{inner}.as_str()).collect())")
        }
        (Some(_), true, _, true) => format!(
            "Companies::Each(self.{outer}.iter().map(|of| of.{inner}.as_str())\
             .filter(|company| !company.is_empty()).collect())"
        ),
        _ => return Err(format!("the build script does not support `{path}`").into()),
    })
}

/// `CheckRequest` as `CHECK_REQUEST`.
fn constant(name: &str) -> String {
    let mut constant = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !constant.is_empty() {
            constant.push('_');
        }
        constant.push(c.to_ascii_uppercase());
    }
    constant
}
