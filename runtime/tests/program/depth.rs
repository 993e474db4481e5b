//! `fathom depth`.

use std::path::Path;
use std::process::Command;

use safetensors::SafeTensors;

use super::support::{fail, fathom, succeed, tensor, tests};

fn depth(model: &Path, image: &Path, output: &Path) -> Command {
    let mut command = fathom();
    command.args(["depth", "--software", "--model"]).arg(model);
    command.arg("--image").arg(image).arg("--output").arg(output);
    command
}

/// Size, colours, bits and bytes of a PNG.
fn png(path: &Path) -> (u32, u32, png::ColorType, png::BitDepth, Vec<u8>) {
    let mut reader =
        png::Decoder::new(std::io::BufReader::new(std::fs::File::open(path).unwrap())).read_info().unwrap();
    let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut bytes).unwrap();
    (info.width, info.height, info.color_type, info.bit_depth, bytes)
}

/// A directory that transformers' `save_pretrained` wrote: the depths are those of transformers, in every file.
#[test]
fn depth_gives_transformers_map_of_a_photo() {
    let folder = tempfile::tempdir().unwrap();
    let [photo, map, colours, npy, values] =
        ["photo.png", "map.png", "colours.png", "map.npy", "map.safetensors"].map(|name| folder.path().join(name));
    for (case, metric) in [("depth_anything_metric", true), ("depth_anything_relative", false)] {
        let golden = tests("golden").join(case);
        let bytes = std::fs::read(golden.join("observation.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let image = file.tensor("image").unwrap();
        let [height, width] = [image.shape()[0], image.shape()[1]];
        let mut encoder = png::Encoder::new(std::fs::File::create(&photo).unwrap(), width as u32, height as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.write_header().unwrap().write_image_data(image.data()).unwrap();

        succeed(depth(&golden, &photo, &map).arg("--colour").arg(&colours).arg("--values").arg(&npy));
        let (shape, expected) = tensor(&golden.join("golden.safetensors"), "depth");
        let largest = expected.iter().fold(0.0_f32, |m, v| m.max(*v));
        let smallest = expected.iter().fold(f32::INFINITY, |m, v| m.min(*v));
        let close = |found: &[f32], expected: &[f32]| {
            assert_eq!(found.len(), expected.len(), "{case}");
            let error = found.iter().zip(expected).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(error <= 1e-3 * largest, "{case}: largest error {error} of {largest}");
        };
        let npy_bytes = std::fs::read(&npy).unwrap();
        let header = 10 + usize::from(u16::from_le_bytes([npy_bytes[8], npy_bytes[9]]));
        assert_eq!(header % 64, 0);
        let text = String::from_utf8_lossy(&npy_bytes[10..header]);
        assert!(text.contains(&format!("'shape': ({}, {})", shape[0], shape[1])) && text.ends_with('\n'), "{text}");
        close(&bytemuck::pod_collect_to_vec(&npy_bytes[header..]), &expected);

        let (w, h, colour, bits, grey) = png(&map);
        assert_eq!((w as usize, h as usize), (shape[1], shape[0]));
        assert_eq!((colour, bits), (png::ColorType::Grayscale, png::BitDepth::Sixteen));
        let unit = if metric { 0.001 } else { (largest - smallest) / 65535.0 };
        let grey = grey.as_chunks().0.iter().map(|b| f32::from(u16::from_be_bytes(*b)) * unit);
        close(&grey.map(|v| if metric { v } else { v + smallest }).collect::<Vec<_>>(), &expected);
        let (w, h, colour, ..) = png(&colours);
        assert_eq!((w as usize, h as usize, colour), (shape[1], shape[0], png::ColorType::Rgb));

        succeed(depth(&golden, &photo, &map).arg("--original-size").arg("--values").arg(&values));
        let (shape, found) = tensor(&values, "depth");
        assert_eq!(shape, [height, width]);
        close(&found, &tensor(&golden.join("golden.safetensors"), "original_size").1);
    }
}

#[test]
fn depth_reports_mistakes_plainly() {
    let folder = tempfile::tempdir().unwrap();
    let (golden, output) = (tests("golden/depth_anything_metric"), folder.path().join("map.png"));
    let photo = tests("shim/picture.jpg");
    let said = fail(&mut depth(Path::new("/nowhere"), &photo, &output));
    assert!(said.contains("/nowhere/config.json"), "the model's file is named");
    let said = fail(&mut depth(&tests("golden/pi0_lerobot"), &photo, &output));
    assert!(said.contains("model_type") && said.contains("depth_anything"), "what the directory should be");
    let said = fail(&mut depth(&golden, &golden.join("config.json"), &output));
    assert!(said.contains("config.json") && said.contains("PNG or JPEG"), "what the image should be");
    let said = fail(&mut depth(&golden, Path::new("/nowhere.png"), &output));
    assert!(said.contains("/nowhere.png"), "the image is named");
    let said = fail(depth(&golden, &photo, &output).args(["--values", "values.txt"]));
    assert!(said.contains("values.txt") && said.contains(".npy"), "what values can be written to");
    assert!(!output.exists(), "nothing was written");
    let said = fail(&mut depth(&golden, &photo, Path::new("/nowhere/map.png")));
    assert!(said.contains("/nowhere/map.png"), "the output is named");
}
