//! Parses and validates every variant of every kernel, so that a WGSL mistake is a build error with its place. Writes
//! `shaders.rs`: the kernels, and for each variant its key, its bindings and its tile.

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
    let (mut kernels, mut names) = (Vec::new(), Vec::new());
    for variant in preprocess::variants(&read(&root.join("variants.txt"))?)? {
        let file = format!("{}.wgsl", variant.kernel);
        let flags: Vec<&str> = variant.flags.iter().map(String::as_str).collect();
        let source = preprocess::preprocess(&file, &read(&root.join(&file))?, &flags, &prelude)?;
        let module = validate(&variant.name, &source)?;
        let shader = shader(&variant, &source.wgsl, &module)?;
        let (name, kernel, [rows, columns]) = (variant.name.to_uppercase(), camel(&variant.kernel), tile(&module));
        let key = key(&variant, &module);
        writeln!(
            generated,
            "/// `wgsl/{file}` with flags {flags:?}.\npub static {name}: Variant = Variant {{ shader: {shader}, key: Key {{ kernel: Kernel::{kernel}, {key} }}, tile: [{rows}, {columns}] }};"
        )
        .map_err(|e| e.to_string())?;
        names.push(format!("&{name}"));
        if !kernels.iter().any(|(known, _)| *known == kernel) {
            kernels.push((kernel, file));
        }
    }
    let kernels: String = kernels.iter().map(|(kernel, file)| format!("/// `wgsl/{file}`\n{kernel},\n")).collect();
    writeln!(
        generated,
        "/// A kernel.\n#[derive(Clone, Copy, Debug, PartialEq, Eq)]\npub enum Kernel {{\n{kernels}}}\n/// Every variant of every kernel.\npub static ALL: &[&Variant] = &[{}];",
        names.join(", ")
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

/// The shader's fields.
fn shader(variant: &preprocess::Variant, wgsl: &str, module: &naga::Module) -> Result<String, String> {
    let (name, bindings) = (&variant.name, bindings(&variant.name, module)?);
    let size = module.entry_points[0].workgroup_size;
    Ok(format!("Shader {{ name: {name:?}, wgsl: {wgsl:?}, workgroup_size: {size:?}, bindings: &[{bindings}] }}"))
}

/// The key's fields besides the kernel.
fn key(variant: &preprocess::Variant, module: &naga::Module) -> String {
    let has = |flag: &str| variant.flags.iter().any(|f| f == flag);
    let encodings = [("W_F32", "F32"), ("W_F16", "F16"), ("W_BF16", "Bf16"), ("W_W8", "W8"), ("W_W4", "W4")];
    let encoding = encodings.into_iter().find(|(flag, _)| has(flag)).map(|(_, encoding)| encoding);
    let weights = encoding.map(|e| format!("Encoding::{e}{}", if has("MINIMA") { "Minima" } else { "" }));
    let weights = weights.map_or_else(|| "None".to_owned(), |e| format!("Some({e})"));
    // Matrices are T on each side, and WIDTHS are 64 columns of a head each.
    let (side, width) = (constant(module, &["T"]).unwrap_or(0), constant(module, &["WIDTHS"]).unwrap_or(0) * 64);
    let (subgroups, f16) = (has("SUBGROUPS"), variant.f16);
    format!("weights: {weights}, matrix_side: {side}, head_width: {width}, subgroups: {subgroups}, f16: {f16}")
}

/// Rows and columns of the tile that a workgroup computes, by the names that kernels have for them.
fn tile(module: &naga::Module) -> [u32; 2] {
    let names = [["ROWS", "TILE_ROWS", "TILE"].as_slice(), &["COLS", "COLUMNS", "TILE_COLS", "TILE"]];
    names.map(|names| constant(module, names).unwrap_or(1))
}

/// The first of the constants that exists.
fn constant(module: &naga::Module, names: &[&str]) -> Option<u32> {
    let value = |name: &&str| {
        let (_, constant) = module.constants.iter().find(|(_, c)| c.name.as_deref() == Some(*name))?;
        match module.global_expressions[constant.init] {
            naga::Expression::Literal(naga::Literal::U32(value)) => Some(value),
            _ => None,
        }
    };
    names.iter().find_map(value)
}

/// `linear_coop` to `LinearCoop`.
fn camel(name: &str) -> String {
    let word = |word: &str| word.chars().take(1).flat_map(char::to_uppercase).chain(word.chars().skip(1)).collect();
    name.split('_').map(word).collect::<Vec<String>>().concat()
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
