/* The compiled path of quant.rtn and quant.blocks; quant/search.py is the same arithmetic, and explains it.
 *
 * Both give the same bits on every machine: float32 operations are neither fused nor reordered
 * (-ffp-contract=off, no -ffast-math). -ffinite-math-only and -fno-signed-zeros only allow min and max
 * instructions: weights are checked as integers before any arithmetic, nothing here overflows, and no result
 * depends on a zero's sign. Without GCC's or Clang's vector types the build fails, and the numpy path serves.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))
#define TINY 5.9604644775390625e-08f /* 2^-24, the least float16 */
#define NORMAL 6.103515625e-05f      /* 2^-14, the least normal float16 */
#define HALF_MAX 65504.0f

enum { BLOCK = 32, ASYM_BITS = 7 };
enum format { INT4, INT4_ASYM, INT5, INT8, FORMATS };
enum dtype { F32, F16, BF16, F64, DTYPES };

static const int WIDTHS[] = {4, 2, 2, 8};
static const float LIMITS[] = {HALF_MAX * 8, 32768, HALF_MAX * 16, HALF_MAX * 127};
static const float DIVISORS[] = {-7.8f, -8.2f, -8.6f, -9.0f, 6.35f, 6.75f, 7.1f, 7.45f};
static const float DIVISORS_5[COUNT(DIVISORS)] = {-14.1f, -14.85f, -15.2f, -15.8f, -16.1f, -16.4f, -16.7f, 13.1f};
static const float SPANS[] = {14.2f, 14.75f, 15.3f, 15.85f, 16.4f, 16.95f, 17.5f};
static const float NEIGHBOURS[] = {1.0f, 0.989f, 1.011f};

INLINE uint32_t bits_of(float v) {
    uint32_t u;
    memcpy(&u, &v, 4);
    return u;
}

INLINE float float_of(uint32_t u) {
    float v;
    memcpy(&v, &u, 4);
    return v;
}

/* The bits of a float that is a float16 already. */
INLINE uint16_t half_of(float v) {
    uint32_t u = bits_of(v), a = u & 0x7FFFFFFF;
    uint32_t half = float_of(a) < NORMAL ? (uint32_t)(float_of(a) * 16777216.0f) : (a >> 13) - (112 << 10);
    return (uint16_t)(u >> 16 & 0x8000) | (uint16_t)half;
}

/* Block `index` of the rows, widened; 0 when a weight is not finite or its magnitude is above the limit. */
INLINE int load(float *out, const void *rows, enum dtype dtype, Py_ssize_t index, float limit) {
    const char *source = (const char *)rows + index * BLOCK * WIDTHS[dtype];
    uint32_t worst = 0;
    if (dtype == F32) {
        memcpy(out, source, BLOCK * sizeof(float));
    } else if (dtype == BF16) {
        uint16_t raw[BLOCK];
        memcpy(raw, source, sizeof raw);
        for (int i = 0; i < BLOCK; i++) out[i] = float_of((uint32_t)raw[i] << 16);
    } else if (dtype == F16) {
        uint16_t raw[BLOCK];
        memcpy(raw, source, sizeof raw);
        for (int i = 0; i < BLOCK; i++) {
            uint32_t a = raw[i] & 0x7FFF, sign = (uint32_t)(raw[i] & 0x8000) << 16;
            /* The exponent is moved by a multiplication, which also carries denormals; inf and nan stay so. */
            float v = float_of(a << 13) * 5.192296858534828e33f;
            out[i] = float_of((a >= 0x7C00 ? 0x7F800000u : bits_of(v)) | sign);
        }
    } else {
        double raw[BLOCK];
        memcpy(raw, source, sizeof raw);
        for (int i = 0; i < BLOCK; i++) {
            uint64_t u;
            memcpy(&u, &raw[i], 8);
            /* float32 holds no exponent above 127: do not let the conversion decide what becomes of it. */
            out[i] = (u >> 52 & 0x7FF) > 1023 + 127 ? float_of(0x7F800000u) : (float)raw[i];
        }
    }
    for (int i = 0; i < BLOCK; i++) {
        uint32_t a = bits_of(out[i]) & 0x7FFFFFFF;
        worst = a > worst ? a : worst;
    }
    return worst <= bits_of(limit);
}

#define LANES 4
#include "kernel_tile.h"
#undef LANES

#if defined(__x86_64__) && !defined(__clang__) /* Clang has another pragma for targets */
#pragma GCC push_options
#pragma GCC target("avx2")
#define LANES 8
#include "kernel_tile.h"
#undef LANES
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f")
#define LANES 16
#include "kernel_tile.h"
#undef LANES
#pragma GCC pop_options
#endif

typedef Py_ssize_t (*quantizer)(enum format, enum dtype, const void *, Py_ssize_t, uint8_t *, uint16_t *,
                                uint8_t *);

static quantizer widest(int lanes) {
#if defined(__x86_64__) && !defined(__clang__)
    if (lanes >= 16 && __builtin_cpu_supports("avx512f")) return quantize_16;
    if (lanes >= 8 && __builtin_cpu_supports("avx2")) return quantize_8;
#endif
    (void)lanes;
    return quantize_4;
}

static PyObject *quantize(PyObject *module, PyObject *args) {
    int format, dtype, lanes;
    Py_buffer rows, codes, scales, zeros;
    PyObject *result = NULL;
    (void)module;
    if (!PyArg_ParseTuple(args, "iiy*w*w*w*i", &format, &dtype, &rows, &codes, &scales, &zeros, &lanes))
        return NULL;
    Py_ssize_t count = codes.len / BLOCK;
    if (format < 0 || format >= FORMATS || dtype < 0 || dtype >= DTYPES || codes.len % BLOCK ||
        rows.len != codes.len * WIDTHS[dtype] || scales.len != count * 2 ||
        zeros.len != (format == INT4_ASYM ? count : 0)) {
        PyErr_SetString(PyExc_ValueError, "buffers do not fit each other");
    } else {
        Py_ssize_t bad;
        Py_BEGIN_ALLOW_THREADS
        bad = widest(lanes)((enum format)format, (enum dtype)dtype, rows.buf, count, codes.buf, scales.buf,
                            format == INT4_ASYM ? zeros.buf : NULL);
        Py_END_ALLOW_THREADS
        result = PyLong_FromSsize_t(bad);
    }
    PyBuffer_Release(&rows);
    PyBuffer_Release(&codes);
    PyBuffer_Release(&scales);
    PyBuffer_Release(&zeros);
    return result;
}

/* GGUF blocks: `head` bytes as they are, then 32 signed bytes; or, of 5 bits, 4 bytes with the highest bit of
 * weight i at bit i, and 16 bytes with the lower 4 bits of weight j low and of j + 16 high. */
static void pack_blocks(const uint8_t *heads, const uint8_t *codes, uint8_t *out, Py_ssize_t count, int head,
                        int bits) {
    for (Py_ssize_t block = 0; block < count; block++) {
        memcpy(out, heads + block * head, (size_t)head);
        out += head;
        uint8_t *nibbles = out + (bits == 5 ? BLOCK / 8 : 0);
        if (bits == 8)
            for (int i = 0; i < BLOCK; i++) out[i] = codes[i] ^ 0x80;
        else
            for (int i = 0; i < BLOCK / 2; i++)
                nibbles[i] = (uint8_t)((codes[i] & 0xF) | codes[i + BLOCK / 2] << 4);
        if (bits == 5) {
            memset(out, 0, BLOCK / 8);
            for (int i = 0; i < BLOCK; i++) out[i / 8] |= (uint8_t)(codes[i] >> 4 << i % 8);
        }
        out += BLOCK * bits / 8;
        codes += BLOCK;
    }
}

static PyObject *pack(PyObject *module, PyObject *args) {
    int bits;
    Py_buffer heads, codes, out;
    (void)module;
    if (!PyArg_ParseTuple(args, "iy*y*w*", &bits, &heads, &codes, &out)) return NULL;
    Py_ssize_t count = codes.len / BLOCK;
    int head = count ? (int)(heads.len / count) : 0;
    int fits = (bits == 4 || bits == 5 || bits == 8) && codes.len == count * BLOCK && heads.len == count * head &&
               out.len == count * (head + BLOCK * bits / 8);
    if (fits) {
        Py_BEGIN_ALLOW_THREADS
        pack_blocks(heads.buf, codes.buf, out.buf, count, head, bits);
        Py_END_ALLOW_THREADS
    } else {
        PyErr_SetString(PyExc_ValueError, "buffers do not fit each other");
    }
    PyBuffer_Release(&heads);
    PyBuffer_Release(&codes);
    PyBuffer_Release(&out);
    return fits ? Py_NewRef(Py_None) : NULL;
}

static PyMethodDef methods[] = {
    {"quantize", quantize, METH_VARARGS,
     "quantize(format, dtype, rows, codes, scales, zeros, lanes) -> first block that cannot be held, or -1"},
    {"pack", pack, METH_VARARGS, "pack(bits, heads, codes, out): ggml blocks"},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT, .m_name = "_kernel", .m_methods = methods, .m_slots = slots};

PyMODINIT_FUNC PyInit__kernel(void) { return PyModuleDef_Init(&definition); }
