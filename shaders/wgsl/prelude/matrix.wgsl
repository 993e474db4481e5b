// Cooperative matrices of T × T.

#ifdef COOP8
const T: u32 = 8u;
alias Left = coop_mat8x8<f16, A>;
alias Right = coop_mat8x8<f16, B>;
alias Sum = coop_mat8x8<f32, C>;
#else
const T: u32 = 16u;
alias Left = coop_mat16x16<f16, A>;
alias Right = coop_mat16x16<f16, B>;
alias Sum = coop_mat16x16<f32, C>;
#endif

// The largest f16: larger f32 values must not become infinite.
const LARGEST: f16 = 65504.0h;
