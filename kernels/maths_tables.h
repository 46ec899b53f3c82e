/* Constants and polynomials of the exact maths; gpuscan/maths/tables.py holds the same numbers.
 * Polynomials without a named source are Chebyshev interpolants, computed in 70 digits and rounded. */
#ifndef GS_MATHS_TABLES_H
#define GS_MATHS_TABLES_H
#include "portable.h"

#define GS_LOG2E_f32 1.44269502e+00f
#define GS_LOG2E_f64 1.4426950408889634
#define GS_LN2_f32 6.93147182e-01f
#define GS_LN2_f64 0.6931471805599453
/* few bits, so k * LN2_HIGH is exact */
#define GS_LN2_HIGH_f32 6.93115234e-01f
#define GS_LN2_HIGH_f64 0.6931471805592082
#define GS_LN2_LOW_f32 3.19461833e-05f
#define GS_LN2_LOW_f64 7.371002565167799e-13
#define GS_LOG10_2_HIGH_f32 3.01025391e-01f
#define GS_LOG10_2_HIGH_f64 0.30102999566361177
#define GS_LOG10_2_LOW_f32 4.60503907e-06f
#define GS_LOG10_2_LOW_f64 3.694239077158931e-13
#define GS_LOG2E_HIGH_f32 1.44238281e+00f
#define GS_LOG2E_HIGH_f64 1.4426946640014648
#define GS_LOG2E_LOW_f32 3.12228396e-04f
#define GS_LOG2E_LOW_f64 3.768874985636099e-07
#define GS_LOG10E_HIGH_f32 4.34204102e-01f
#define GS_LOG10E_HIGH_f64 0.4342944622039795
#define GS_LOG10E_LOW_f32 9.03803375e-05f
#define GS_LOG10E_LOW_f64 1.9699272335463627e-08
/* pi/2 in four parts, the first three of few bits */
#define GS_HALF_PI_1_f32 1.5703125e+00f
#define GS_HALF_PI_1_f64 1.5707963267341256
#define GS_HALF_PI_2_f32 4.83512878e-04f
#define GS_HALF_PI_2_f64 6.07710050359346e-11
#define GS_HALF_PI_3_f32 3.13855708e-07f
#define GS_HALF_PI_3_f64 2.9127320548227e-20
#define GS_HALF_PI_4_f32 6.07710063e-11f
#define GS_HALF_PI_4_f64 1.2706558760139879e-29
#define GS_TWO_OVER_PI_f32 6.36619747e-01f
#define GS_TWO_OVER_PI_f64 0.6366197723675814
#define GS_PI_f32 3.14159274e+00f
#define GS_PI_f64 3.141592653589793
#define GS_PI_LOW_f32 -8.74227766e-08f
#define GS_PI_LOW_f64 1.2246467991473532e-16
#define GS_HALF_PI_f32 1.57079637e+00f
#define GS_HALF_PI_f64 1.5707963267948966
#define GS_HALF_PI_LOW_f32 -4.37113883e-08f
#define GS_HALF_PI_LOW_f64 6.123233995736766e-17
#define GS_QUARTER_PI_f32 7.85398185e-01f
#define GS_QUARTER_PI_f64 0.7853981633974483
#define GS_TAN_PI_8_f32 4.14213568e-01f
#define GS_TAN_PI_8_f64 0.41421356237309503
#define GS_SQRT_HALF_f32 7.07106769e-01f
#define GS_SQRT_HALF_f64 0.7071067811865476
#define GS_LOG_PI_f32 1.14472985e+00f
#define GS_LOG_PI_f64 1.1447298858494002
#define GS_SQRT_TWO_PI_f32 2.50662827e+00f
#define GS_SQRT_TWO_PI_f64 2.5066282746310007
/* psi(PSI_ROOT + PSI_ROOT_LOW) = 0 */
#define GS_PSI_ROOT_f32 1.46163213e+00f
#define GS_PSI_ROOT_f64 1.4616321449683622
#define GS_PSI_ROOT_LOW_f32 1.24381501e-08f
#define GS_PSI_ROOT_LOW_f64 9.549995429965697e-17
/* e^x is inf above */
#define GS_EXP_MAX_f32 8.9e+01f
#define GS_EXP_MAX_f64 710.0
/* e^x is 0 below */
#define GS_EXP_MIN_f32 -1.04e+02f
#define GS_EXP_MIN_f64 -746.0
#define GS_EXP2_MAX_f32 1.285e+02f
#define GS_EXP2_MAX_f64 1024.5
#define GS_EXP2_MIN_f32 -1.51e+02f
#define GS_EXP2_MIN_f64 -1076.0
/* e^x - 1 rounds to -1 below */
#define GS_EXPM1_MIN_f32 -2e+01f
#define GS_EXPM1_MIN_f64 -45.0
/* tanh rounds to 1 above */
#define GS_TANH_MAX_f32 1e+01f
#define GS_TANH_MAX_f64 22.0
/* the least normal number */
#define GS_TINY_f32 1.17549435e-38f
#define GS_TINY_f64 2.2250738585072014e-308
/* x + ROUND - ROUND is x rounded to an integer */
#define GS_ROUND_f32 1.2582912e+07f
#define GS_ROUND_f64 6755399441055744.0
/* takes denormals to normals */
#define GS_LIFT_f32 3.3554432e+07f
#define GS_LIFT_f64 1.8014398509481984e+16
#define GS_LIFT_BITS_f32 2.5e+01f
#define GS_LIFT_BITS_f64 54.0
/* Dekker's splitter */
#define GS_SPLIT_f32 4.097e+03f
#define GS_SPLIT_f64 134217729.0
#define GS_ERFCX_A_f32 2e+00f
#define GS_ERFCX_A_f64 4.0
/* erfc is 0 above */
#define GS_ERFC_MAX_f32 1.05e+01f
#define GS_ERFC_MAX_f64 28.0
/* above it, Payne and Hanek reduce */
#define GS_REDUCE_MAX_f32 8.192e+03f
#define GS_REDUCE_MAX_f64 1048576.0
/* 1 + BIG^-2 rounds to 1, nearly */
#define GS_BIG_f32 8.192e+03f
#define GS_BIG_f64 268435456.0
/* gamma is inf above */
#define GS_GAMMA_MAX_f32 4e+01f
#define GS_GAMMA_MAX_f64 180.0
/* x^POWER_MAX is 0, 1 or inf */
#define GS_POWER_MAX_f32 1.09951163e+12f
#define GS_POWER_MAX_f64 1.1805916207174113e+21
#define GS_STIRLING_LN_f32 4.18938547e-01f
#define GS_STIRLING_LN_f64 0.4189385332046727
/* its square is a normal number */
#define GS_TINY_SQUARE_f32 8.67361738e-19f
#define GS_TINY_SQUARE_f64 3.054936363499605e-151
/* the last coefficient of `log`, in two parts */
#define GS_LOG_CUBE_f32 6.66666687e-01f
#define GS_LOG_CUBE_f64 0.6666666666666666
#define GS_LOG_CUBE_LOW_f32 -2.09996287e-08f
#define GS_LOG_CUBE_LOW_f64 3.4955007673226913e-17

/* (e^r - 1 - r) / r^2, |r| <= ln2/2 */
GS_FN float gs_poly_exp_f32(float x) {
    float y = 1.98910799e-04f;
    y = y * x + 1.39337312e-03f;
    y = y * x + 8.33331048e-03f;
    y = y * x + 4.1666463e-02f;
    y = y * x + 1.66666672e-01f;
    y = y * x + 5e-01f;
    return y;
}
GS_FN double gs_poly_exp_f64(double x) {
    double y = 2.09147553258932e-09;
    y = y * x + 2.5105312729622103e-08;
    y = y * x + 2.755727347871858e-07;
    y = y * x + 2.755725517000089e-06;
    y = y * x + 2.480158732567746e-05;
    y = y * x + 0.0001984126987500228;
    y = y * x + 0.0013888888888883711;
    y = y * x + 0.008333333333326084;
    y = y * x + 0.04166666666666667;
    y = y * x + 0.1666666666666667;
    y = y * x + 0.5;
    return y;
}
/* (log((1+s)/(1-s)) - 2s) / s^3 in s^2 */
GS_FN float gs_poly_log_f32(float x) {
    float y = 2.33329132e-01f;
    y = y * x + 2.85507321e-01f;
    y = y * x + 4.00001228e-01f;
    y = y * x + 6.66666687e-01f;
    return y;
}
GS_FN double gs_poly_log_f64(double x) {
    double y = 0.13089629160674623;
    y = y * x + 0.13268485680654427;
    y = y * x + 0.1538625044794019;
    y = y * x + 0.18181795442371984;
    y = y * x + 0.2222222239356661;
    y = y * x + 0.2857142857079543;
    y = y * x + 0.4000000000000089;
    y = y * x + 0.6666666666666666;
    return y;
}
/* (sin r - r) / r^3 in r^2 */
GS_FN float gs_poly_sin_f32(float x) {
    float y = 2.72483658e-06f;
    y = y * x + -1.98400739e-04f;
    y = y * x + 8.33333191e-03f;
    y = y * x + -1.66666672e-01f;
    return y;
}
GS_FN double gs_poly_sin_f64(double x) {
    double y = -7.586389554705215e-13;
    y = y * x + 1.6058526388142101e-10;
    y = y * x + -2.505210619936182e-08;
    y = y * x + 2.7557319219243677e-06;
    y = y * x + -0.0001984126984126494;
    y = y * x + 0.008333333333333331;
    y = y * x + -0.16666666666666666;
    return y;
}
/* (cos r - 1 + r^2/2) / r^4 in r^2 */
GS_FN float gs_poly_cos_f32(float x) {
    float y = 2.45466545e-05f;
    y = y * x + -1.38882967e-03f;
    y = y * x + 4.16666642e-02f;
    return y;
}
GS_FN double gs_poly_cos_f64(double x) {
    double y = -1.138218421447753e-11;
    y = y * x + 2.0876140031390975e-09;
    y = y * x + -2.755731724172776e-07;
    y = y * x + 2.48015872987077e-05;
    y = y * x + -0.0013888888888887359;
    y = y * x + 0.041666666666666664;
    return y;
}
/* (arctan r - r) / r^3 in r^2, r <= tan(pi/8) */
GS_FN float gs_poly_atan_f32(float x) {
    float y = -6.44428208e-02f;
    y = y * x + 1.07414201e-01f;
    y = y * x + -1.42637417e-01f;
    y = y * x + 1.99995339e-01f;
    y = y * x + -3.33333313e-01f;
    return y;
}
GS_FN double gs_poly_atan_f64(double x) {
    double y = -0.01912278764345682;
    y = y * x + 0.03918740290273182;
    y = y * x + -0.05083915053306858;
    y = y * x + 0.05857855104198358;
    y = y * x + -0.06664477563804053;
    y = y * x + 0.07692180780934722;
    y = y * x + -0.09090904474199038;
    y = y * x + 0.11111111012693953;
    y = y * x + -0.14285714284634626;
    y = y * x + 0.1999999999999537;
    y = y * x + -0.3333333333333333;
    return y;
}
/* (arcsin r - r) / r^3 in r^2, r <= 1/2 */
GS_FN float gs_poly_asin_f32(float x) {
    float y = 3.37007269e-02f;
    y = y * x + 1.7143717e-02f;
    y = y * x + 3.11017279e-02f;
    y = y * x + 4.45993207e-02f;
    y = y * x + 7.50009492e-02f;
    y = y * x + 1.66666657e-01f;
    return y;
}
GS_FN double gs_poly_asin_f64(double x) {
    double y = 0.02877844261259304;
    y = y * x + -0.014881409392818066;
    y = y * x + 0.017419357964884856;
    y = y * x + 0.00545087818772055;
    y = y * x + 0.010324318288744113;
    y = y * x + 0.011478952690257387;
    y = y * x + 0.013971235301124539;
    y = y * x + 0.017352391265909227;
    y = y * x + 0.022372173002005596;
    y = y * x + 0.030381944137085216;
    y = y * x + 0.04464285714637338;
    y = y * x + 0.07499999999998425;
    y = y * x + 0.16666666666666669;
    return y;
}
/* (sinh x - x) / x^3 in x^2, x <= 1 */
GS_FN float gs_poly_sinh_f32(float x) {
    float y = 2.80628024e-06f;
    y = y * x + 1.98381022e-04f;
    y = y * x + 8.33333936e-03f;
    y = y * x + 1.66666672e-01f;
    return y;
}
GS_FN double gs_poly_sinh_f64(double x) {
    double y = 7.746178593018827e-13;
    y = y * x + 1.6057679623801638e-10;
    y = y * x + 2.5052117695907823e-08;
    y = y * x + 2.7557319191381816e-06;
    y = y * x + 0.00019841269841324198;
    y = y * x + 0.008333333333333299;
    y = y * x + 0.16666666666666666;
    return y;
}
/* erf(x) / x - 1 in x^2, x <= 1/2 */
GS_FN float gs_poly_erf_f32(float x) {
    float y = -7.69453414e-04f;
    y = y * x + 5.20041352e-03f;
    y = y * x + -2.68631428e-02f;
    y = y * x + 1.12837739e-01f;
    y = y * x + -3.76126379e-01f;
    y = y * x + 1.28379166e-01f;
    return y;
}
GS_FN double gs_poly_erf_f64(double x) {
    double y = -1.462091340945175e-07;
    y = y * x + 1.637123442577e-06;
    y = y * x + -1.4923003368152099e-05;
    y = y * x + 0.00012055286202005714;
    y = y * x + -0.0008548326510724796;
    y = y * x + 0.0052239776220169365;
    y = y * x + -0.02686617064499972;
    y = y * x + 0.1128379167095487;
    y = y * x + -0.3761263890318375;
    y = y * x + 0.1283791670955126;
    return y;
}
/* (1 + 2x) e^(x^2) erfc(x) in (x-a)/(x+a), x >= 1/2; a = 2 (float32), 4 (float64) */
GS_FN float gs_poly_erfcx_f32(float x) {
    float y = 2.7738139e-04f;
    y = y * x + -3.36292549e-04f;
    y = y * x + -1.52290286e-03f;
    y = y * x + 1.23355433e-03f;
    y = y * x + 8.74271151e-03f;
    y = y * x + -8.02814495e-03f;
    y = y * x + -5.4222215e-02f;
    y = y * x + 1.64050862e-01f;
    y = y * x + -1.66030332e-01f;
    y = y * x + -9.27638188e-02f;
    y = y * x + 1.27697837e+00f;
    return y;
}
GS_FN double gs_poly_erfcx_f64(double x) {
    double y = 3.4238599655102397e-09;
    y = y * x + -9.752941425191894e-09;
    y = y * x + -2.30775672736564e-08;
    y = y * x + 1.0358588303681392e-07;
    y = y * x + 8.187721285705348e-08;
    y = y * x + -8.199551611794782e-07;
    y = y * x + 2.880833478272064e-07;
    y = y * x + 5.706822301859325e-06;
    y = y * x + -1.1219239450968377e-05;
    y = y * x + -2.4398198695781975e-05;
    y = y * x + 0.0001506208125905374;
    y = y * x + -0.00019925692900828166;
    y = y * x + -0.0007577731198845029;
    y = y * x + 0.0050319700130714105;
    y = y * x + -0.016197734077877748;
    y = y * x + 0.03716751553423657;
    y = y * x + -0.06633036581087434;
    y = y * x + 0.09373283499851863;
    y = y * x + -0.10103906603634742;
    y = y * x + 0.06809705425468858;
    y = y * x + 0.01537965210262021;
    y = y * x + -0.1396211168405625;
    y = y * x + 1.2329951186255526;
    return y;
}
/* log gamma(2 + t) / (t (1 + t)), |t| <= 1 */
GS_FN float gs_poly_gammaln_f32(float x) {
    float y = -3.63155232e-05f;
    y = y * x + 7.7871322e-05f;
    y = y * x + -5.9032398e-05f;
    y = y * x + 1.3138834e-04f;
    y = y * x + -4.19005839e-04f;
    y = y * x + 9.43640596e-04f;
    y = y * x + -2.10490776e-03f;
    y = y * x + 4.99179261e-03f;
    y = y * x + -1.23844733e-02f;
    y = y * x + 3.29655968e-02f;
    y = y * x + -1.00317299e-01f;
    y = y * x + 4.22784328e-01f;
    return y;
}
GS_FN double gs_poly_gammaln_f64(double x) {
    double y = 1.4756784497956257e-09;
    y = y * x + -3.045083104616406e-09;
    y = y * x + -3.6707781973177215e-09;
    y = y * x + 7.546982106044216e-09;
    y = y * x + 1.4354602538186547e-08;
    y = y * x + -2.9689377236178223e-08;
    y = y * x + 8.980752931319328e-09;
    y = y * x + -1.9155798912805917e-08;
    y = y * x + 1.0090082501416391e-07;
    y = y * x + -2.1160209415295267e-07;
    y = y * x + 3.9829198619176525e-07;
    y = y * x + -8.417878185566207e-07;
    y = y * x + 1.8101965374585382e-06;
    y = y * x + -3.851628024568635e-06;
    y = y * x + 8.221641184688458e-06;
    y = y * x + -1.7660549436859962e-05;
    y = y * x + 3.816898383928973e-05;
    y = y * x + -8.30953205143401e-05;
    y = y * x + 0.00018255262896164608;
    y = y * x + -0.0004057073767183402;
    y = y * x + 0.0009153769228592748;
    y = y * x + -0.0021081308352055112;
    y = y * x + 0.00499864116468036;
    y = y * x + -0.012384192193336403;
    y = y * x + 0.03296500062115597;
    y = y * x + -0.10031730167435421;
    y = y * x + 0.42278433509846713;
    return y;
}
/* 1 / gamma(1 + t), 0 <= t <= 1 */
GS_FN float gs_poly_rgamma_f32(float x) {
    float y = -1.09601906e-03f;
    y = y * x + 6.58758171e-03f;
    y = y * x + -8.77428986e-03f;
    y = y * x + -4.276032e-02f;
    y = y * x + 1.66745856e-01f;
    y = y * x + -4.20443937e-02f;
    y = y * x + -6.55873895e-01f;
    y = y * x + 5.77215493e-01f;
    y = y * x + 1e+00f;
    return y;
}
GS_FN double gs_poly_rgamma_f64(double x) {
    double y = 1.6830710938973937e-08;
    y = y * x + -2.1625295038834288e-07;
    y = y * x + 1.13001856382529e-06;
    y = y * x + -1.2260549452566738e-06;
    y = y * x + -2.017222246142559e-05;
    y = y * x + 0.00012808396519598864;
    y = y * x + -0.0002152622261528776;
    y = y * x + -0.0011651587514510775;
    y = y * x + 0.007218940544441112;
    y = y * x + -0.009621970947314578;
    y = y * x + -0.04219773464081281;
    y = y * x + 0.1665386113904478;
    y = y * x + -0.04200263503456415;
    y = y * x + -0.6558780715202398;
    y = y * x + 0.5772156649015326;
    y = y * x + 1.0;
    return y;
}
/* psi(1 + t) / (1 + t - x0), 0 <= t <= 1 */
GS_FN float gs_poly_psi_f32(float x) {
    float y = -1.59063172e-02f;
    y = y * x + 9.54874977e-02f;
    y = y * x + -2.64842033e-01f;
    y = y * x + 4.64920342e-01f;
    y = y * x + -6.09497726e-01f;
    y = y * x + 6.78966403e-01f;
    y = y * x + -7.1177572e-01f;
    y = y * x + 7.52262235e-01f;
    y = y * x + -8.54687274e-01f;
    y = y * x + 1.25038016e+00f;
    return y;
}
GS_FN double gs_poly_psi_f64(double x) {
    double y = -0.00017312261802727394;
    y = y * x + 0.0020774723105506836;
    y = y * x + -0.01183727152744269;
    y = y * x + 0.0427830131726811;
    y = y * x + -0.1107670847566569;
    y = y * x + 0.22058797774723324;
    y = y * x + -0.3556978884537855;
    y = y * x + 0.48507284929579964;
    y = y * x + -0.5827856789173862;
    y = y * x + 0.6414308462385623;
    y = y * x + -0.6694978444516394;
    y = y * x + 0.6802492594990093;
    y = y * x + -0.6836547089985048;
    y = y * x + 0.6848171436159209;
    y = y * x + -0.685780525399315;
    y = y * x + 0.6874872336670987;
    y = y * x + -0.6909819690009981;
    y = y * x + 0.6983634995191561;
    y = y * x + -0.714540711526564;
    y = y * x + 0.752468272286776;
    y = y * x + -0.8546933606017683;
    y = y * x + 1.2503801375034054;
    return y;
}
/* x (log gamma(x) - Stirling) in 1/x^2, x >= 8 */
GS_FN float gs_poly_stirling_f32(float x) {
    float y = 7.80034694e-04f;
    y = y * x + -2.77769845e-03f;
    y = y * x + 8.33333358e-02f;
    return y;
}
GS_FN double gs_poly_stirling_f64(double x) {
    double y = -0.0016526002910866372;
    y = y * x + 0.0008372834445598766;
    y = y * x + -0.0005952025950762167;
    y = y * x + 0.0007936506649481122;
    y = y * x + -0.002777777777606242;
    y = y * x + 0.0833333333333333;
    return y;
}
/* x^2 (log x - 1/(2x) - psi x) in 1/x^2, x >= 8 */
GS_FN float gs_poly_psi_tail_f32(float x) {
    float y = 3.87358828e-03f;
    y = y * x + -8.33278336e-03f;
    y = y * x + 8.33333358e-02f;
    return y;
}
GS_FN double gs_poly_psi_tail_f64(double x) {
    double y = 0.0636214951470787;
    y = y * x + -0.020697986826550732;
    y = y * x + 0.0075716896096004165;
    y = y * x + -0.004166644822949278;
    y = y * x + 0.00396825391195325;
    y = y * x + -0.008333333333278636;
    y = y * x + 0.08333333333333333;
    return y;
}
/* `log` without it */
GS_FN float gs_poly_log_rest_f32(float x) {
    float y = 2.33329132e-01f;
    y = y * x + 2.85507321e-01f;
    y = y * x + 4.00001228e-01f;
    return y;
}
GS_FN double gs_poly_log_rest_f64(double x) {
    double y = 0.13089629160674623;
    y = y * x + 0.13268485680654427;
    y = y * x + 0.1538625044794019;
    y = y * x + 0.18181795442371984;
    y = y * x + 0.2222222239356661;
    y = y * x + 0.2857142857079543;
    y = y * x + 0.4000000000000089;
    return y;
}
/* AS241 (PPND7, PPND16), Wichura 1988: |p - 1/2| <= 0.425 */
GS_FN float gs_poly_normal_mid_num_f32(float x) {
    float y = 5.9109375e+01f;
    y = y * x + 1.59291138e+02f;
    y = y * x + 5.04342728e+01f;
    y = y * x + 3.38713264e+00f;
    return y;
}
GS_FN double gs_poly_normal_mid_num_f64(double x) {
    double y = 2509.0809287301227;
    y = y * x + 33430.57558358813;
    y = y * x + 67265.7709270087;
    y = y * x + 45921.95393154987;
    y = y * x + 13731.69376550946;
    y = y * x + 1971.5909503065513;
    y = y * x + 133.14166789178438;
    y = y * x + 3.3871328727963665;
    return y;
}
/* its denominator */
GS_FN float gs_poly_normal_mid_den_f32(float x) {
    float y = 6.7187561e+01f;
    y = y * x + 7.87577591e+01f;
    y = y * x + 1.78951702e+01f;
    y = y * x + 1e+00f;
    return y;
}
GS_FN double gs_poly_normal_mid_den_f64(double x) {
    double y = 5226.495278852854;
    y = y * x + 28729.085735721943;
    y = y * x + 39307.89580009271;
    y = y * x + 21213.794301586597;
    y = y * x + 5394.196021424751;
    y = y * x + 687.1870074920579;
    y = y * x + 42.31333070160091;
    y = y * x + 1.0;
    return y;
}
/* AS241, sqrt(-log p) <= 5 */
GS_FN float gs_poly_normal_near_num_f32(float x) {
    float y = 1.70238212e-01f;
    y = y * x + 1.30672848e+00f;
    y = y * x + 2.75681543e+00f;
    y = y * x + 1.42343724e+00f;
    return y;
}
GS_FN double gs_poly_normal_near_num_f64(double x) {
    double y = 0.0007745450142783414;
    y = y * x + 0.022723844989269184;
    y = y * x + 0.2417807251774506;
    y = y * x + 1.2704582524523684;
    y = y * x + 3.6478483247632045;
    y = y * x + 5.769497221460691;
    y = y * x + 4.630337846156546;
    y = y * x + 1.4234371107496835;
    return y;
}
/* its denominator */
GS_FN float gs_poly_normal_near_den_f32(float x) {
    float y = 1.20211333e-01f;
    y = y * x + 7.37001657e-01f;
    y = y * x + 1e+00f;
    return y;
}
GS_FN double gs_poly_normal_near_den_f64(double x) {
    double y = 1.0507500716444169e-09;
    y = y * x + 0.0005475938084995345;
    y = y * x + 0.015198666563616457;
    y = y * x + 0.14810397642748008;
    y = y * x + 0.6897673349851;
    y = y * x + 1.6763848301838038;
    y = y * x + 2.053191626637759;
    y = y * x + 1.0;
    return y;
}
/* AS241, sqrt(-log p) > 5 */
GS_FN float gs_poly_normal_far_num_f32(float x) {
    float y = 1.73372049e-02f;
    y = y * x + 4.28682953e-01f;
    y = y * x + 3.08122635e+00f;
    y = y * x + 6.6579051e+00f;
    return y;
}
GS_FN double gs_poly_normal_far_num_f64(double x) {
    double y = 2.0103343992922881e-07;
    y = y * x + 2.7115555687434876e-05;
    y = y * x + 0.0012426609473880784;
    y = y * x + 0.026532189526576124;
    y = y * x + 0.29656057182850487;
    y = y * x + 1.7848265399172913;
    y = y * x + 5.463784911164114;
    y = y * x + 6.657904643501103;
    return y;
}
/* its denominator */
GS_FN float gs_poly_normal_far_den_f32(float x) {
    float y = 1.22582028e-02f;
    y = y * x + 2.41978943e-01f;
    y = y * x + 1e+00f;
    return y;
}
GS_FN double gs_poly_normal_far_den_f64(double x) {
    double y = 2.0442631033899397e-15;
    y = y * x + 1.421511758316446e-07;
    y = y * x + 1.8463183175100548e-05;
    y = y * x + 0.0007868691311456133;
    y = y * x + 0.014875361290850615;
    y = y * x + 0.1369298809227358;
    y = y * x + 0.599832206555888;
    y = y * x + 1.0;
    return y;
}

/* The bits of 2 / pi, a word of zeros first. */
GS_TABLE gs_u32 gs_two_over_pi_f32[10] = {
    0x0u, 0xa2f9836eu, 0x4e441529u, 0xfc2757d1u, 0xf534ddc0u, 0xdb629599u,
    0x3c439041u, 0xfe5163abu, 0xdebbc561u, 0xb7246e3au,
};
GS_TABLE gs_u64 gs_two_over_pi_f64[21] = {
    0x0ull, 0xa2f9836e4e441529ull, 0xfc2757d1f534ddc0ull,
    0xdb6295993c439041ull, 0xfe5163abdebbc561ull, 0xb7246e3a424dd2e0ull,
    0x6492eea09d1921cull, 0xfe1deb1cb129a73eull, 0xe88235f52ebb4484ull,
    0xe99c7026b45f7e41ull, 0x3991d639835339f4ull, 0x9c845f8bbdf9283bull,
    0x1ff897ffde05980full, 0xef2f118b5a0a6d1full, 0x6d367ecf27cb09b7ull,
    0x4f463f669e5fea2dull, 0x7527bac7ebe5f17bull, 0x3d0739f78a5292eaull,
    0x6bfb5fb11f8d5d08ull, 0x56033046fc7b6babull, 0xf0cfbc209af4361dull,
};

#endif
