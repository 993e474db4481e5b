// `#import`, `#ifdef`, `#ifndef`, `#else`, `#endif`: the directives that the kernels use. Shared by build.rs and the
// crate's tests; every output line keeps its origin.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// WGSL after preprocessing, with the origin of each line.
pub(crate) struct Source {
    /// Valid WGSL.
    pub(crate) wgsl: String,
    /// `(file, line)`, one-based, of each line of `wgsl`.
    pub(crate) origin: Vec<(String, usize)>,
}

/// Expands `text` (of `file`) with the given `flags`; `prelude` maps the names in `#import` to their text.
pub(crate) fn preprocess(
    file: &str,
    text: &str,
    flags: &[&str],
    prelude: &BTreeMap<String, String>,
) -> Result<Source, String> {
    let mut out = Source { wgsl: String::new(), origin: Vec::new() };
    let mut imported = Vec::new();
    expand(file, text, flags, prelude, &mut imported, &mut out)?;
    Ok(out)
}

fn expand(
    file: &str,
    text: &str,
    flags: &[&str],
    prelude: &BTreeMap<String, String>,
    imported: &mut Vec<String>,
    out: &mut Source,
) -> Result<(), String> {
    let mut active = vec![true];
    for (index, line) in text.lines().enumerate() {
        let at = || format!("{file}:{}", index + 1);
        let mut words = line.split_whitespace();
        match words.next() {
            Some("#import") => {
                let name = words.next().ok_or_else(|| format!("{}: #import takes a name", at()))?;
                if active.iter().all(|a| *a) && !imported.iter().any(|i| i == name) {
                    let body = prelude.get(name).ok_or_else(|| format!("{}: no prelude {name}", at()))?;
                    imported.push(name.to_owned());
                    expand(&format!("prelude/{name}.wgsl"), body, flags, prelude, imported, out)?;
                }
            }
            Some(directive @ ("#ifdef" | "#ifndef")) => {
                let flag = words.next().ok_or_else(|| format!("{}: {directive} takes a flag", at()))?;
                active.push(flags.contains(&flag) == (directive == "#ifdef"));
            }
            Some("#else") if active.len() > 1 => {
                if let Some(last) = active.last_mut() {
                    *last = !*last;
                }
            }
            Some("#endif") if active.len() > 1 => {
                active.pop();
            }
            Some(word) if word.starts_with('#') => return Err(format!("{}: unknown or unmatched {word}", at())),
            _ if active.iter().all(|a| *a) => {
                let _ = writeln!(out.wgsl, "{line}");
                out.origin.push((file.to_owned(), index + 1));
            }
            _ => {}
        }
    }
    if active.len() == 1 { Ok(()) } else { Err(format!("{file}: #ifdef without #endif")) }
}

/// One line of `variants.txt`: the kernel's file, the variant's name, its flags.
pub(crate) struct Variant {
    pub(crate) kernel: String,
    pub(crate) name: String,
    pub(crate) flags: Vec<String>,
    /// Whether `*` made it: for tensors in f16.
    pub(crate) f16: bool,
}

/// Reads `variants.txt`: a line with a kernel's name is the kernel without flags, `+ name: FLAG…` below it a variant;
/// `-` before a kernel's name lists only its variants; `* FLAG…` repeats all of the kernel's variants with `_h` after
/// their names and these additional flags. `//` begins a comment.
pub(crate) fn variants(text: &str) -> Result<Vec<Variant>, String> {
    let mut list = Vec::new();
    let mut kernel: Option<String> = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.split("//").next().unwrap_or_default().trim();
        if let Some(rest) = line.strip_prefix('+') {
            let (name, flags) = rest.split_once(':').unwrap_or((rest, ""));
            let kernel = kernel.clone().ok_or_else(|| format!("variants.txt:{}: variant without kernel", index + 1))?;
            let flags = flags.split_whitespace().map(str::to_owned).collect();
            list.push(Variant { kernel, name: name.trim().to_owned(), flags, f16: false });
        } else if let Some(more) = line.strip_prefix('*') {
            let kernel =
                kernel.as_ref().ok_or_else(|| format!("variants.txt:{}: variants without kernel", index + 1))?;
            let again: Vec<Variant> = list
                .iter()
                .filter(|v: &&Variant| v.kernel == *kernel)
                .map(|v| Variant {
                    kernel: v.kernel.clone(),
                    name: format!("{}_h", v.name),
                    flags: v.flags.iter().cloned().chain(more.split_whitespace().map(str::to_owned)).collect(),
                    f16: true,
                })
                .collect();
            list.extend(again);
        } else if let Some(name) = line.strip_prefix('-') {
            kernel = Some(name.trim().to_owned());
        } else if !line.is_empty() {
            kernel = Some(line.to_owned());
            list.push(Variant { kernel: line.to_owned(), name: line.to_owned(), flags: Vec::new(), f16: false });
        }
    }
    Ok(list)
}
