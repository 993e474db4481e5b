//! burn's matrix product on wgpu at the shapes of `fathom-latency shapes`: prints a JSON line for each.

use std::time::Instant;

use burn::tensor::{Device, DeviceKind, Distribution, Tensor};

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

fn main() {
    let device = Device::wgpu(DeviceKind::DefaultDevice);
    let count: u32 = std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(3);
    for (name, m, k, n) in [("GEMM 276×2048×16384 f32", 276, 2048, 16384), ("skinny 17×1024×4096 f32", 17, 1024, 4096)] {
        let x = Tensor::<2>::random([m, k], Distribution::Default, &device);
        let w = Tensor::<2>::random([k, n], Distribution::Default, &device);
        let run = || {
            let y = x.clone().matmul(w.clone());
            // The data is only waited for when it is looked at.
            let data = y.slice([0..1, 0..1]).into_data();
            std::hint::black_box(data.iter::<f32>().next());
        };
        for _ in 0..3 {
            run();
        }
        let mut times = Vec::new();
        let cpu = cpu_seconds();
        for _ in 0..count {
            let began = Instant::now();
            run();
            times.push(began.elapsed().as_secs_f64());
        }
        let cpu = (cpu_seconds() - cpu) / f64::from(count);
        times.sort_by(f64::total_cmp);
        let ms = times[times.len() / 2] * 1e3;
        println!("{{\"peer\":\"burn\",\"shape\":\"{name}\",\"ms\":{ms},\"cpu_ms\":{}}}", cpu * 1e3);
    }
}
