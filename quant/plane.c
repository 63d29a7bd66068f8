/* The compiled path of quant.plane: nearest plane in one block, for many rows and candidate scales.
 *
 * Sixteen rows at once, one a lane; a lane never meets another. GCC makes a clone for each SIMD width and the loader
 * picks one. Operations are neither fused nor reordered (-ffp-contract=off), so that all of them give the same bits.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include <stdint.h>
#include <string.h>

enum { BLOCK = 32, LANES = 16 };

typedef float vf __attribute__((vector_size(4 * LANES)));
typedef int32_t vi __attribute__((vector_size(4 * LANES)));

#define SELECT(mask, a, b) ((vf)(((mask) & (vi)(a)) | (~(mask) & (vi)(b))))
#if defined(__x86_64__) && !defined(__clang__)
#define CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define CLONES
#endif

typedef struct {
    const float *target, *carried, *normal, *diagonal, *scales, *low;
    float *codes, *cost;
    int32_t *which;
    Py_ssize_t rows, count;
    float span;
} task;

/* Up to LANES floats; lanes beyond are `fill`. */
static inline __attribute__((always_inline)) void read_lanes(vf *out, const float *from, int lanes, float fill) {
    if (lanes == LANES) {
        memcpy(out, from, sizeof *out);
    } else {
        *out = (vf){0} + fill;
        memcpy(out, from, (size_t)lanes * 4);
    }
}

CLONES static void plane(const task *t) {
    for (Py_ssize_t row = 0; row < t->rows; row += LANES) {
        int lanes = t->rows - row < LANES ? (int)(t->rows - row) : LANES;
        vf target[BLOCK], wanted[BLOCK], error[BLOCK], code[BLOCK], best_code[BLOCK];
        vf best = (vf){0} + 3e38f;
        vi which = {0};
        for (int j = 0; j < BLOCK; j++) {
            vf carried;
            read_lanes(&target[j], t->target + j * t->rows + row, lanes, 0);
            read_lanes(&carried, t->carried + j * t->rows + row, lanes, 0);
            wanted[j] = target[j] + carried;
            best_code[j] = (vf){0};
        }
        for (Py_ssize_t c = 0; c < t->count; c++) {
            vf scale, low, cost = {0};
            read_lanes(&scale, t->scales + c * t->rows + row, lanes, 1);
            read_lanes(&low, t->low + c * t->rows + row, lanes, 0);
            vf inverse = 1.0f / scale, high = low + t->span;
            for (int j = 0; j < BLOCK; j++) {
                const float *normal = t->normal + j * BLOCK;
                vf aim = wanted[j];
                for (int i = 0; i < j; i++) aim += normal[i] * error[i];
                vf q = aim * inverse;
                q = SELECT(q > low, q, low);
                q = SELECT(q < high, q, high);
                q = (q + 12582912.0f) - 12582912.0f; /* to the nearest integer, ties to even */
                vf value = q * scale, left = (aim - value) * t->diagonal[j];
                code[j] = q;
                error[j] = target[j] - value;
                cost += left * left;
            }
            vi better = cost < best;
            best = SELECT(better, cost, best);
            which = (vi)SELECT(better, (vf)((vi){0} + (int32_t)c), (vf)which);
            for (int j = 0; j < BLOCK; j++) best_code[j] = SELECT(better, code[j], best_code[j]);
        }
        for (int j = 0; j < BLOCK; j++)
            memcpy(t->codes + j * t->rows + row, &best_code[j], (size_t)lanes * 4);
        memcpy(t->cost + row, &best, (size_t)lanes * 4);
        memcpy(t->which + row, &which, (size_t)lanes * 4);
    }
}

static PyObject *nearest_plane(PyObject *module, PyObject *args) {
    enum { TARGET, CARRIED, NORMAL, DIAGONAL, SCALES, LOW, CODES, COST, WHICH, BUFFERS };
    Py_buffer b[BUFFERS];
    float span;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*y*y*y*y*y*w*w*w*f", &b[TARGET], &b[CARRIED], &b[NORMAL], &b[DIAGONAL],
                          &b[SCALES], &b[LOW], &b[CODES], &b[COST], &b[WHICH], &span))
        return NULL;
    Py_ssize_t row = b[COST].len, count = row ? b[SCALES].len / row : 0;
    int fits = count > 0 && b[SCALES].len == count * row && b[LOW].len == count * row &&
               b[TARGET].len == BLOCK * row && b[CARRIED].len == BLOCK * row && b[CODES].len == BLOCK * row &&
               b[WHICH].len == row && b[NORMAL].len == BLOCK * BLOCK * 4 && b[DIAGONAL].len == BLOCK * 4;
    if (fits) {
        task t = {b[TARGET].buf, b[CARRIED].buf, b[NORMAL].buf, b[DIAGONAL].buf, b[SCALES].buf, b[LOW].buf,
                  b[CODES].buf, b[COST].buf, b[WHICH].buf, row / 4, count, span};
        Py_BEGIN_ALLOW_THREADS
        plane(&t);
        Py_END_ALLOW_THREADS
    } else {
        PyErr_SetString(PyExc_ValueError, "buffers do not fit each other");
    }
    for (int i = 0; i < BUFFERS; i++) PyBuffer_Release(&b[i]);
    return fits ? Py_NewRef(Py_None) : NULL;
}

static PyMethodDef methods[] = {
    {"nearest_plane", nearest_plane, METH_VARARGS,
     "nearest_plane(target, carried, normal, diagonal, scales, low, codes, cost, which, span)"},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT, .m_name = "_plane", .m_methods = methods, .m_slots = slots};

PyMODINIT_FUNC PyInit__plane(void) { return PyModuleDef_Init(&definition); }
