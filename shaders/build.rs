//! Parses and validates every variant of every kernel, so that a WGSL mistake is a build error with its place,
//! and writes `shaders.rs`: a [`Shader`] constant per variant with its reflected bindings.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

#[path = "preprocess.rs"]
mod preprocess;

fn main() {
    println!("cargo:rerun-if-changed=wgsl");
    println!("cargo:rerun-if-changed=preprocess.rs");
    if let Err(message) = run() {
        eprintln!("{message}");
        std::process::exit(1);
    }
}

fn run() -> Result<(), String> {
    let root = Path::new("wgsl");
    let read = |path: &Path| fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()));
    let mut prelude = BTreeMap::new();
    for entry in fs::read_dir(root.join("prelude")).map_err(|e| e.to_string())? {
        let path = entry.map_err(|e| e.to_string())?.path();
        if let Some(stem) = path.file_stem().and_then(|s| s.to_str()) {
            prelude.insert(stem.to_owned(), read(&path)?);
        }
    }
    let mut generated = String::new();
    let mut names = Vec::new();
    let variants = preprocess::variants(&read(&root.join("variants.txt"))?)?;
    for variant in &variants {
        let file = format!("{}.wgsl", variant.kernel);
        let flags: Vec<&str> = variant.flags.iter().map(String::as_str).collect();
        let source = preprocess::preprocess(&file, &read(&root.join(&file))?, &flags, &prelude)?;
        let module = validate(&variant.name, &source)?;
        let constant = variant.name.to_uppercase();
        let bindings = bindings(&variant.name, &module)?;
        let size = module.entry_points[0].workgroup_size;
        let twice = format!("{}_h", variant.name);
        let half = match variants.iter().any(|v| v.name == twice) {
            true => format!("Some(&{})", twice.to_uppercase()),
            false => "None".to_owned(),
        };
        writeln!(
            generated,
            "/// `{}`: `wgsl/{file}` with flags {flags:?}.\npub const {constant}: Shader = Shader {{ name: {:?}, wgsl: {:?}, workgroup_size: {size:?}, bindings: &[{bindings}], half: {half} }};",
            variant.name, variant.name, source.wgsl
        )
        .map_err(|e| e.to_string())?;
        names.push(constant);
    }
    writeln!(
        generated,
        "/// Every variant of every kernel.\npub const ALL: &[&Shader] = &[{}];",
        names.iter().map(|n| format!("&{n}")).collect::<Vec<_>>().join(", ")
    )
    .map_err(|e| e.to_string())?;
    let out = env::var("OUT_DIR").map_err(|e| e.to_string())?;
    fs::write(Path::new(&out).join("shaders.rs"), generated).map_err(|e| e.to_string())
}

fn validate(name: &str, source: &preprocess::Source) -> Result<naga::Module, String> {
    let place = |line: Option<u32>| {
        let origin = line.and_then(|l| source.origin.get(l as usize - 1));
        origin.map_or_else(|| name.to_owned(), |(file, line)| format!("shaders/wgsl/{file}:{line} (variant {name})"))
    };
    let module = naga::front::wgsl::parse_str(&source.wgsl).map_err(|e| {
        let line = e.location(&source.wgsl).map(|l| l.line_number);
        format!("{}: {}", place(line), e.emit_to_string(&source.wgsl))
    })?;
    use naga::valid::Capabilities;
    let capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32
        | Capabilities::SHADER_FLOAT16
        | Capabilities::SUBGROUP
        | Capabilities::SHADER_INT16
        | Capabilities::COOPERATIVE_MATRIX;
    let mut validator = naga::valid::Validator::new(naga::valid::ValidationFlags::all(), capabilities);
    validator.subgroup_stages(naga::valid::ShaderStages::COMPUTE);
    validator.validate(&module).map_err(|e| {
        let line = e.location(&source.wgsl).map(|l| l.line_number);
        format!("{}: {}", place(line), e.emit_to_string(&source.wgsl))
    })?;
    match module.entry_points.as_slice() {
        [entry] if entry.name == "main" => Ok(module),
        _ => Err(format!("{name}: a kernel has one entry point, main")),
    }
}

fn bindings(name: &str, module: &naga::Module) -> Result<String, String> {
    let mut found = BTreeMap::new();
    for (_, variable) in module.global_variables.iter() {
        let Some(binding) = variable.binding else { continue };
        let kind = match variable.space {
            naga::AddressSpace::Uniform => "BindingKind::Uniform",
            naga::AddressSpace::Storage { access } if access.contains(naga::StorageAccess::STORE) => {
                "BindingKind::ReadWrite"
            }
            naga::AddressSpace::Storage { .. } => "BindingKind::Read",
            _ => return Err(format!("{name}: binding {} is neither uniform nor storage", binding.binding)),
        };
        found.insert(binding.binding, kind);
    }
    if found.keys().copied().ne(0..found.len() as u32) || found.get(&0) != Some(&"BindingKind::Uniform") {
        return Err(format!("{name}: bindings are 0, 1, 2, … with the parameters at 0"));
    }
    Ok(found.into_values().collect::<Vec<_>>().join(", "))
}
