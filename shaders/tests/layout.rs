//! The Rust parameter structs match the WGSL's, field by field.

use std::collections::BTreeMap;

use fathom_shaders::{Kernel, Variant, params, variants};

#[test]
fn parameters_match_the_wgsl_of_every_variant() {
    let rust: BTreeMap<_, _> =
        params::layouts().into_iter().map(|(name, fields, size)| (name, (fields, size))).collect();
    let mut seen = std::collections::BTreeSet::new();
    for variant in variants::ALL {
        let shader = &variant.shader;
        let module = naga::front::wgsl::parse_str(shader.wgsl).expect("validated by build.rs");
        let (_, uniform) = module
            .global_variables
            .iter()
            .find(|(_, v)| v.space == naga::AddressSpace::Uniform)
            .expect("binding 0 is the parameters");
        let ty = &module.types[uniform.ty];
        let name = ty.name.as_deref().expect("a named struct");
        let naga::TypeInner::Struct { members, span } = &ty.inner else { panic!("{name} is not a struct") };
        let wgsl: Vec<(&str, usize)> =
            members.iter().map(|m| (m.name.as_deref().expect("named"), m.offset as usize)).collect();
        let (fields, size) = rust.get(name).unwrap_or_else(|| panic!("{}: no Rust struct {name}", shader.name));
        assert_eq!(&wgsl, fields, "{}: fields of {name}", shader.name);
        assert_eq!(*span as usize, *size, "{}: size of {name}", shader.name);
        seen.insert(name.to_owned());
    }
    assert_eq!(seen.len(), rust.len(), "every Rust parameter struct has a kernel");
}

/// Layout and arithmetic distinguish the images' kernels, keys all others.
#[test]
fn a_key_finds_its_variant() {
    for variant in variants::ALL {
        let named = Variant::named(variant.shader.name).expect("it is one of all");
        assert!(std::ptr::eq(named, *variant), "{}", variant.shader.name);
        if !matches!(variant.key.kernel, Kernel::ImageUnpack | Kernel::ResizeAxis) {
            let found = Variant::of(variant.key).expect("it is one of all");
            assert!(std::ptr::eq(found, *variant), "{} and {}", variant.shader.name, found.shader.name);
        }
    }
}
