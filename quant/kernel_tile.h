/* The arithmetic of quant/search.py on LANES blocks at once; kernel.c includes this once for each SIMD width.
 *
 * A tile is transposed: vector i holds weight i of LANES blocks. A lane never meets another one, and sums run
 * over the 32 weights in their order, so the width changes the speed and not one bit.
 */
#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME(a) JOIN(a, LANES)

typedef float NAME(vf) __attribute__((vector_size(4 * LANES)));
typedef int32_t NAME(vi) __attribute__((vector_size(4 * LANES)));

#define VF NAME(vf)
#define VI NAME(vi)
#define TILE NAME(tile)
#define ALL(value) ((VF){0} + (value))
#define SELECT(mask, a, b) ((VF)(((mask) & (VI)(a)) | (~(mask) & (VI)(b))))
#define TAKE_IF(mask, value, target) (target) = SELECT(mask, value, target)

typedef struct {
    VF x[BLOCK];
    VI codes[BLOCK];
    VF scale, zero;
} TILE;

INLINE VF NAME(magnitude)(VF v) { return (VF)((VI)v & 0x7FFFFFFF); }

INLINE VF NAME(clip)(VF v, VF low, VF high) {
    v = SELECT(v > low, v, low);
    return SELECT(v < high, v, high);
}

/* To the nearest integer, ties to even; |v| < 2^22. */
INLINE VF NAME(nearest)(VF v) { return (v + 12582912.0f) - 12582912.0f; }

/* To `keep` significant bits and a multiple of 2^-24, ties to even; magnitude within [2^-24, 65504]. */
INLINE VF NAME(grid)(VF v, int keep) {
    int drop = 24 - keep;
    VF a = NAME(magnitude)(v);
    VI bits = (VI)a;
    VI kept = (bits + ((1 << (drop - 1)) - 1) + ((bits >> drop) & 1)) & ~((1 << drop) - 1);
    VF step = (a + 0.5f) - 0.5f; /* a float32 in [0.5, 1) is a multiple of 2^-24 */
    VI coarse = bits < (127 - 25 + keep) << 23;
    VF r = NAME(clip)(SELECT(coarse, step, (VF)kept), ALL(TINY), ALL(HALF_MAX));
    return (VF)((VI)r | ((VI)v & INT32_MIN));
}

/* Squared error of x with scale s and codes in [low, high]. */
INLINE VF NAME(error)(const TILE *t, VF s, VF low, VF high) {
    VF inverse = 1.0f / s, sum = {0};
    for (int i = 0; i < BLOCK; i++) {
        VF q = NAME(nearest)(NAME(clip)(t->x[i] * inverse, low, high)), e = t->x[i] - q * s;
        sum += e * e;
    }
    return sum;
}

INLINE void NAME(finish)(TILE *t, VF s, VF low, VF high, VF offset, VI dead) {
    VF inverse = 1.0f / s;
    for (int i = 0; i < BLOCK; i++) {
        VF q = NAME(nearest)(NAME(clip)(t->x[i] * inverse, low, high)) + offset;
        t->codes[i] = (VI)(q + 12582912.0f) & 0xFF; /* the low bits of the sum are the integer */
    }
    t->scale = SELECT(dead, (VF){0}, s);
}

/* search._symmetric, _int4_asym and _int8 */
INLINE void NAME(symmetric)(TILE *t, float half, const float *divisors) {
    VF top = {0}, y[BLOCK];
    for (int i = 0; i < BLOCK; i++)
        TAKE_IF(NAME(magnitude)(t->x[i]) > NAME(magnitude)(top), t->x[i], top);
    VI dead = NAME(magnitude)(top) <= TINY / 2;
    TAKE_IF(dead, ALL(1), top);
    VF inverse = 1.0f / top;
    for (int i = 0; i < BLOCK; i++) y[i] = t->x[i] * inverse;

    VF low = ALL(-half), high = ALL(half - 1), best = ALL(-1), ratio = {0};
    for (int k = 0; k < COUNT(DIVISORS); k++) {
        VF yq = {0}, qq = {0};
        for (int i = 0; i < BLOCK; i++) {
            VF q = y[i] * divisors[k];
            /* |y| <= 1, and the positive divisors are below half - 0.5: no code of theirs leaves the range. */
            q = NAME(nearest)(divisors[k] > 0 ? q : NAME(clip)(q, low, high));
            yq += y[i] * q;
            qq += q * q;
        }
        VF fit = yq / SELECT(qq > 0, qq, ALL(1)), score = yq * fit;
        VI better = score > best;
        TAKE_IF(better, fit, ratio);
        TAKE_IF(better, score, best);
    }

    VF s = NAME(grid)(top * (-1.0f / half), 11), next = NAME(grid)(top * ratio, 11);
    TAKE_IF(NAME(error)(t, next, low, high) < NAME(error)(t, s, low, high), next, s);
    NAME(finish)(t, s, low, high, ALL(half), dead);
}

static void NAME(int4_asym)(TILE *t) {
    VF bottom = {0}, top = {0}, y[BLOCK];
    for (int i = 0; i < BLOCK; i++) {
        TAKE_IF(t->x[i] < bottom, t->x[i], bottom);
        TAKE_IF(t->x[i] > top, t->x[i], top);
    }
    VI dead = (-bottom <= TINY / 2) & (top <= TINY / 2);
    VF span = SELECT(dead, ALL(1), top - bottom), inverse = 1.0f / span, below = -bottom * inverse;
    for (int i = 0; i < BLOCK; i++) y[i] = t->x[i] * inverse;

    VF none = {0}, last = ALL(15), best = ALL(-1), ratio = {0}, zero = {0};
    for (int k = 0; k < COUNT(SPANS); k++) {
        VF z = NAME(nearest)(NAME(clip)(below * SPANS[k] - (SPANS[k] - 15.0f) * 0.5f, none, last));
        VF yq = {0}, qq = {0};
        for (int i = 0; i < BLOCK; i++) {
            VF q = NAME(nearest)(NAME(clip)(y[i] * SPANS[k], -z, last - z));
            yq += y[i] * q;
            qq += q * q;
        }
        VF fit = yq / SELECT(qq > 0, qq, ALL(1)), score = yq * fit;
        VI better = score > best;
        TAKE_IF(better, fit, ratio);
        TAKE_IF(better, score, best);
        TAKE_IF(better, z, zero);
    }

    VF s = NAME(grid)(span / 15.0f, ASYM_BITS), z;
    z = NAME(nearest)(NAME(clip)(-bottom * (1.0f / s), none, last));
    VF least = NAME(error)(t, s, -z, last - z);
    for (int k = 0; k < COUNT(NEIGHBOURS); k++) {
        VF next = NAME(grid)(span * ratio * NEIGHBOURS[k], ASYM_BITS);
        VF sum = NAME(error)(t, next, -zero, last - zero);
        VI better = sum < least;
        TAKE_IF(better, next, s);
        TAKE_IF(better, zero, z);
        TAKE_IF(better, sum, least);
    }
    TAKE_IF(dead, none, z);
    t->zero = z;
    NAME(finish)(t, s, -z, last - z, z, dead);
}

static void NAME(int8)(TILE *t) {
    VF top = {0}, low = ALL(-128), high = ALL(127);
    for (int i = 0; i < BLOCK; i++) TAKE_IF(NAME(magnitude)(t->x[i]) > top, NAME(magnitude)(t->x[i]), top);
    VI dead = top <= TINY / 2;
    VF s = NAME(grid)(top / 127.0f, 11);
    VI tiny = s < NORMAL;
    VF next = NAME(grid)(SELECT(tiny, s + TINY, (VF)((VI)s + (1 << 13))), 11);
    TAKE_IF(NAME(error)(t, next, low, high) < NAME(error)(t, s, low, high), next, s);
    NAME(finish)(t, s, low, high, ALL(128), dead);
}

/* Blocks [0, count) of contiguous rows; returns the first block with a weight that cannot be held, or -1. */
static Py_ssize_t NAME(quantize)(enum format format, enum dtype dtype, const void *rows, Py_ssize_t count,
                                 uint8_t *codes, uint16_t *scales, uint8_t *zeros) {
    TILE t;
    for (Py_ssize_t first = 0; first < count; first += LANES) {
        int lanes = count - first < LANES ? (int)(count - first) : LANES;
        if (lanes < LANES) memset(t.x, 0, sizeof t.x);
        for (int lane = 0; lane < lanes; lane++) {
            float block[BLOCK];
            if (!load(block, rows, dtype, first + lane, LIMITS[format])) return first + lane;
            for (int i = 0; i < BLOCK; i++) ((float *)&t.x[i])[lane] = block[i];
        }
        if (format == INT4) NAME(symmetric)(&t, 8, DIVISORS);
        if (format == INT5) NAME(symmetric)(&t, 16, DIVISORS_5);
        if (format == INT4_ASYM) NAME(int4_asym)(&t);
        if (format == INT8) NAME(int8)(&t);
        for (int lane = 0; lane < lanes; lane++) {
            uint8_t *out = codes + (first + lane) * BLOCK;
            for (int i = 0; i < BLOCK; i++) out[i] = (uint8_t)((int32_t *)&t.codes[i])[lane];
            scales[first + lane] = half_of(((float *)&t.scale)[lane]);
            if (zeros) zeros[first + lane] = (uint8_t)((float *)&t.zero)[lane];
        }
    }
    return -1;
}

#undef JOIN_
#undef JOIN
#undef NAME
#undef VF
#undef VI
#undef TILE
#undef ALL
#undef SELECT
#undef TAKE_IF
