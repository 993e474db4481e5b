//! The Vulkan drivers that the loader would find: their manifests, and the libraries that these name.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::Finding;
use super::system::System;

/// Folders with drivers' manifests, after the loader's own documentation ("Driver Discovery on Linux").
const MANIFESTS: [&str; 3] = ["etc/vulkan/icd.d", "usr/local/share/vulkan/icd.d", "usr/share/vulkan/icd.d"];
/// Where libraries are searched besides the folders of `/etc/ld.so.conf`.
const LIBRARIES: [&str; 4] = ["lib", "usr/lib", "lib64", "usr/lib64"];
/// Nested files of `/etc/ld.so.conf` that are followed.
const NESTED: u32 = 4;

impl System {
    /// Why the Vulkan loader may find no driver: a finding for the loader if it is missing, and one for each driver whose library
    /// is. `named` is the value of `VK_DRIVER_FILES`, which replaces the search.
    pub(super) fn drivers(&self, named: Option<&str>) -> Vec<Finding> {
        let folders = self.library_folders();
        let mut findings = Vec::new();
        if self.library("libvulkan.so.1", &folders).is_none() {
            let remedy = "install the Vulkan loader (Debian, Ubuntu and L4T: apt install libvulkan1)";
            findings.push(Finding::failure("Vulkan", "libvulkan.so.1 is not there", Some(remedy.to_owned())));
        }
        let manifests = self.manifests(named);
        if manifests.is_empty() {
            let found = "no Vulkan driver is installed: no manifest in /usr/share/vulkan/icd.d or /etc/vulkan/icd.d";
            let remedy =
                "install the GPU's driver (Mesa: apt install mesa-vulkan-drivers; Jetson: it comes with JetPack)";
            findings.push(Finding::failure("Vulkan", found, Some(remedy.to_owned())));
        }
        for manifest in manifests {
            findings.extend(self.driver(&manifest, &folders));
        }
        findings
    }

    /// A failure, if the driver's library is missing.
    fn driver(&self, manifest: &Path, folders: &[PathBuf]) -> Option<Finding> {
        let shown = manifest.display();
        let text = match std::fs::read_to_string(manifest) {
            Ok(text) => text,
            Err(error) => return Some(Finding::failure("Vulkan", format!("{shown}: {error}"), None)),
        };
        let tree: serde_json::Value = match serde_json::from_str(&text) {
            Ok(tree) => tree,
            Err(error) => return Some(Finding::failure("Vulkan", format!("{shown}: {error}"), None)),
        };
        let Some(library) = tree.pointer("/ICD/library_path").and_then(serde_json::Value::as_str) else {
            return Some(Finding::failure("Vulkan", format!("{shown}: expected ICD.library_path, found none"), None));
        };
        let is_there = match (library.starts_with('/'), library.contains('/')) {
            (true, _) => self.path(library.trim_start_matches('/')).exists(),
            (false, true) => manifest.parent().is_some_and(|folder| folder.join(library).exists()),
            (false, false) => self.library(library, folders).is_some(),
        };
        if is_there {
            return None;
        }
        let remedy = if library.contains("nvidia") {
            "NVIDIA's GL libraries belong to its Vulkan driver, with or without a screen: on a Jetson install the package \
             nvidia-l4t-3d-core (a Yocto image: tegra-libraries-glxcore); in a container let NVIDIA_DRIVER_CAPABILITIES \
             contain graphics"
        } else {
            "install the package of the driver again"
        };
        let found = format!("{shown} names the driver {library}, which is not there");
        Some(Finding::failure("Vulkan", found, Some(remedy.to_owned())))
    }

    fn manifests(&self, named: Option<&str>) -> Vec<PathBuf> {
        if let Some(named) = named {
            return named.split(':').filter(|part| !part.is_empty()).map(PathBuf::from).collect();
        }
        let mut found = BTreeSet::new();
        for folder in MANIFESTS {
            let entries = std::fs::read_dir(self.path(folder)).into_iter().flatten().flatten();
            found
                .extend(entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "json")));
        }
        found.into_iter().collect()
    }

    /// The path of a library, if it is there.
    fn library(&self, name: &str, folders: &[PathBuf]) -> Option<PathBuf> {
        folders.iter().map(|folder| folder.join(name)).find(|path| path.exists())
    }

    /// Folders in which the dynamic loader searches.
    fn library_folders(&self) -> Vec<PathBuf> {
        let mut folders = Vec::new();
        self.read_loader_file(&self.path("etc/ld.so.conf"), NESTED, &mut folders);
        folders.extend(LIBRARIES.iter().map(|folder| self.path(folder)));
        folders
    }

    fn read_loader_file(&self, file: &Path, nested: u32, folders: &mut Vec<PathBuf>) {
        for line in std::fs::read_to_string(file).unwrap_or_default().lines().map(str::trim) {
            match line.strip_prefix("include") {
                Some(pattern) if nested > 0 => {
                    // Debian's and Ubuntu's includes are all of the form FOLDER/*.conf.
                    let folder = pattern.trim().trim_end_matches("*.conf").trim_matches('/');
                    let entries = std::fs::read_dir(self.path(folder)).into_iter().flatten().flatten();
                    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
                    files.sort();
                    for file in files {
                        self.read_loader_file(&file, nested - 1, folders);
                    }
                }
                _ if line.starts_with('/') => folders.push(self.path(line.trim_start_matches('/'))),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A computer with these files.
    fn computer(files: &[(&str, &str)]) -> (tempfile::TempDir, System) {
        let root = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
            fs::write(path, text).expect("a file");
        }
        let system = System::at(root.path());
        (root, system)
    }

    const LOADER: (&str, &str) = ("usr/lib/aarch64-linux-gnu/libvulkan.so.1", "");
    const FOLDERS: [(&str, &str); 2] = [
        ("etc/ld.so.conf", "include /etc/ld.so.conf.d/*.conf\n"),
        ("etc/ld.so.conf.d/arm.conf", "# Multiarch\n/usr/lib/aarch64-linux-gnu\n"),
    ];
    const NVIDIA: (&str, &str) = (
        "etc/vulkan/icd.d/nvidia_icd.json",
        r#"{"ICD": {"library_path": "libGLX_nvidia.so.0", "api_version": "1.3"}}"#,
    );

    #[test]
    fn a_headless_jetson_misses_a_library_that_is_named() {
        let files = [LOADER, FOLDERS[0], FOLDERS[1], NVIDIA];
        let (_root, system) = computer(&files);
        let findings = system.drivers(None);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].found.contains("names the driver libGLX_nvidia.so.0, which is not there"), "{findings:?}");
        assert!(findings[0].remedy.as_ref().is_some_and(|remedy| remedy.contains("nvidia-l4t-3d-core")));
        let library = ("usr/lib/aarch64-linux-gnu/libGLX_nvidia.so.0", "");
        let (_root, system) = computer(&[LOADER, FOLDERS[0], FOLDERS[1], NVIDIA, library]);
        assert_eq!(system.drivers(None), [], "all of it is there");
    }

    #[test]
    fn a_computer_without_loader_or_driver_hears_both() {
        let (_root, system) = computer(&[]);
        let found: Vec<String> = system.drivers(None).into_iter().map(|finding| finding.found).collect();
        assert!(found[0].contains("libvulkan.so.1") && found[1].contains("no Vulkan driver is installed"), "{found:?}");
    }

    #[test]
    fn manifests_that_are_no_manifests_are_named() {
        let broken = ("usr/share/vulkan/icd.d/a.json", "{");
        let other = ("usr/share/vulkan/icd.d/b.json", r#"{"layer": {}}"#);
        let (_root, system) = computer(&[LOADER, FOLDERS[0], FOLDERS[1], broken, other]);
        let found: Vec<String> = system.drivers(None).into_iter().map(|finding| finding.found).collect();
        assert!(found[0].contains("a.json") && found[1].contains("expected ICD.library_path, found none"), "{found:?}");
        let named = system.drivers(Some("/nowhere/c.json"));
        assert!(named[0].found.starts_with("/nowhere/c.json"), "VK_DRIVER_FILES replaces the search: {named:?}");
    }
}
