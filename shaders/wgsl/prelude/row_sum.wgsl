// Sum over the 64 threads of a workgroup; all threads call it and all get the sum.

var<workgroup> row_part: array<f32, 64>;

fn row_sum(index: u32, v: f32) -> f32 {
    row_part[index] = v;
    workgroupBarrier();
    for (var s = 32u; s > 0u; s >>= 1u) {
        if index < s { row_part[index] += row_part[index + s]; }
        workgroupBarrier();
    }
    let total = row_part[0];
    workgroupBarrier();
    return total;
}
