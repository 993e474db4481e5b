use crate::params::Attention;

/// `out[r, h] = softmax_j( cap( q[r, h] · k[j, h'] · scale ) ) · v[j, h']` over the row's range of keys.
pub fn attention(p: &Attention, q: &[f32], k: &[f32], v: &[f32], out: &mut [f32]) {
    let dim = p.head_dim as usize;
    let keys = p.key_count as usize;
    for row in 0..p.rows as usize {
        let first = p.key_start as usize + (row / p.q_block as usize) * p.k_block as usize;
        for head in 0..p.heads as usize {
            let kv = head / (p.heads / p.kv_heads) as usize * dim;
            let query = &q[p.q_offset as usize + row * p.q_stride as usize + head * dim..][..dim];
            let at = |offset: u32, j: usize| offset as usize + (first + j) * p.kv_stride as usize + kv;
            let mut weight: Vec<f32> = (0..keys)
                .map(|j| {
                    let key = &k[at(p.k_offset, j)..][..dim];
                    let dot = query.iter().zip(key).map(|(a, b)| a * p.scale * b).sum::<f32>();
                    if p.softcap > 0.0 { p.softcap * (dot / p.softcap).tanh() } else { dot }
                })
                .collect();
            let top = weight.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            weight.iter_mut().for_each(|w| *w = (*w - top).exp());
            let sum: f32 = weight.iter().sum();
            let to = &mut out[p.out_offset as usize + row * p.out_stride as usize + head * dim..][..dim];
            to.fill(0.0);
            for (j, w) in weight.iter().enumerate() {
                for (o, value) in to.iter_mut().zip(&v[at(p.v_offset, j)..][..dim]) {
                    *o += w / sum * value;
                }
            }
        }
    }
}
