//! burn on wgpu at the shapes of `fathom-latency shapes`: prints a JSON line for each.

use std::time::Instant;

use burn::tensor::activation::gelu_approximate;
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::quantization::{QuantScheme, QuantStore, QuantValue, ScaleDtype};
use burn::tensor::{Device, DeviceKind, Distribution, Tensor};

const TOKENS: usize = 276;
const WIDTH: usize = 2048;
const MLP: usize = 16384;
const HEADS: usize = 8;
const DIM: usize = 256;

struct Bench {
    count: u32,
    device: Device,
}

impl Bench {
    fn random<const D: usize>(&self, shape: [usize; D]) -> Tensor<D> {
        Tensor::random(shape, Distribution::Default, &self.device)
    }

    /// A matrix of `k` rows and `n` columns, packed where `bits` says so: a scale for 32 values, as burn-wgpu's own default.
    fn matrix(&self, k: usize, n: usize, bits: Option<u32>) -> Tensor<2> {
        let value = match bits {
            None => return self.random([k, n]),
            Some(8) => QuantValue::Q8S,
            Some(_) => QuantValue::Q4S,
        };
        let scheme = QuantScheme::default().with_value(value).with_store(QuantStore::PackedU32(0));
        let scheme = scheme.per_block([32], ScaleDtype::F32);
        self.random([n, k]).quantize_dynamic(&scheme).swap_dims(0, 1)
    }

    fn report<const D: usize>(&self, shape: &str, run: impl Fn() -> Tensor<D>) {
        let run = || {
            // The data is only waited for when it is looked at.
            let data = run().slice([0..1, 0..1]).into_data();
            std::hint::black_box(data.iter::<f32>().next());
        };
        for _ in 0..3 {
            run();
        }
        let mut times = Vec::new();
        let cpu = cpu_seconds();
        for _ in 0..self.count {
            let began = Instant::now();
            run();
            times.push(began.elapsed().as_secs_f64());
        }
        let cpu = (cpu_seconds() - cpu) / f64::from(self.count);
        times.sort_by(f64::total_cmp);
        let ms = times[times.len() / 2] * 1e3;
        println!("{{\"peer\":\"burn\",\"shape\":\"{shape}\",\"ms\":{ms},\"cpu_ms\":{}}}", cpu * 1e3);
    }

    /// A layer of Gemma-2B on tokens that see each other.
    fn layer(&self, shape: &str, bits: Option<u32>) {
        let weights = [(WIDTH, HEADS * DIM), (WIDTH, DIM), (WIDTH, DIM), (HEADS * DIM, WIDTH), (WIDTH, MLP), (WIDTH, MLP)];
        let [q, k, v, o, gate, up] = weights.map(|(k, n)| self.matrix(k, n, bits));
        let down = self.matrix(MLP, WIDTH, bits);
        let norms = [self.random([1, WIDTH]), self.random([1, WIDTH])];
        let [sin, cos] = [(); 2].map(|()| self.random([1, TOKENS, DIM / 2]));
        let x = self.random([TOKENS, WIDTH]);
        let norm = |x: &Tensor<2>, weight: &Tensor<2>| {
            let scale = (x.clone().powi_scalar(2).mean_dim(1) + 1e-6).sqrt().recip();
            x.clone() * scale * (weight.clone() + 1.0)
        };
        let rope = |x: Tensor<3>| {
            let [heads, tokens, _] = x.dims();
            let a = x.clone().slice([0..heads, 0..tokens, 0..DIM / 2]);
            let b = x.slice([0..heads, 0..tokens, DIM / 2..DIM]);
            let first = a.clone() * cos.clone() - b.clone() * sin.clone();
            Tensor::cat(vec![first, b * cos.clone() + a * sin.clone()], 2)
        };
        self.report(shape, || {
            let h = norm(&x, &norms[0]);
            let queries = h.clone().matmul(q.clone()).reshape([TOKENS, HEADS, DIM]).swap_dims(0, 1);
            let keys = h.clone().matmul(k.clone()).reshape([1, TOKENS, DIM]);
            let values = h.matmul(v.clone()).reshape([1, 1, TOKENS, DIM]).repeat_dim(1, HEADS);
            let (queries, keys) = (rope(queries).unsqueeze::<4>(), rope(keys).unsqueeze::<4>().repeat_dim(1, HEADS));
            let a = attention(queries, keys, values, None, None, AttentionModuleOptions::default());
            let a = a.swap_dims(1, 2).reshape([TOKENS, HEADS * DIM]);
            let x = x.clone() + a.matmul(o.clone());
            let h = norm(&x, &norms[1]);
            let h = gelu_approximate(h.clone().matmul(gate.clone())) * h.matmul(up.clone());
            x + h.matmul(down.clone())
        });
    }
}

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

fn main() {
    let count = std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(3);
    let bench = Bench { count, device: Device::wgpu(DeviceKind::DefaultDevice) };
    let formats = [("f32", None), ("w8", Some(8)), ("w4", Some(4))];
    for (name, m, k, n) in [("GEMM 276×2048×16384", TOKENS, WIDTH, MLP), ("skinny 17×1024×4096", 17, 1024, 4096)] {
        for (format, bits) in formats {
            let (x, w) = (bench.random([m, k]), bench.matrix(k, n, bits));
            bench.report(&format!("{name} {format}"), || x.clone().matmul(w.clone()));
        }
    }
    for rows in [TOKENS, 17] {
        let q = bench.random([1, HEADS, rows, DIM]);
        let [k, v] = [(); 2].map(|()| bench.random([1, 1, 549, DIM]).repeat_dim(1, HEADS));
        bench.report(&format!("attention {rows} × 549 keys"), || {
            let a = attention(q.clone(), k.clone(), v.clone(), None, None, AttentionModuleOptions::default());
            a.reshape([HEADS * rows, DIM])
        });
    }
    for (format, bits) in [("f32", None), ("w4", Some(4))] {
        bench.layer(&format!("layer {TOKENS} {format}"), bits);
    }
}
