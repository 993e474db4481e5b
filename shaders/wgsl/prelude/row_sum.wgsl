// A row of a workgroup of 64 threads, and the sum over these; all threads call it and all get the sum.

struct Row {
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
#ifdef SUBGROUPS
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
    @builtin(subgroup_invocation_id) lane: u32,
#endif
}

var<workgroup> row_part: array<f32, 64>; // of each thread, or subgroup

#ifdef SUBGROUPS
fn row_sum(row: Row, v: f32) -> f32 {
    let part = subgroupAdd(v);
    if row.lane == 0u { row_part[row.subgroup] = part; }
    workgroupBarrier();
    var total = 0.0;
    for (var s = 0u; s < row.subgroups; s++) { total += row_part[s]; }
    workgroupBarrier();
    return total;
}
#else
fn row_sum(row: Row, v: f32) -> f32 {
    row_part[row.index] = v;
    workgroupBarrier();
    for (var s = 32u; s > 0u; s >>= 1u) {
        if row.index < s { row_part[row.index] += row_part[row.index + s]; }
        workgroupBarrier();
    }
    let total = row_part[0];
    workgroupBarrier();
    return total;
}
#endif
