// Test only: what Android's C library has and musl has not, so that libraries built for a phone load under musl's
// dynamic linker. On 64-bit ARM the two agree on the layouts of pthread, stat and mbstate; they differ in the stdio
// objects, the names of the fortified functions, the numbers of sysconf, and the log.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// bionic's stdin, stdout and stderr are three objects of this size in one array.
enum { FILE_SIZE = 152 };
char __sF[3 * FILE_SIZE];

static FILE *real(FILE *file) {
    char *at = (char *)file;
    if (at < __sF || at >= __sF + sizeof __sF) return file;
    FILE *standard[] = {stdin, stdout, stderr};
    return standard[(at - __sF) / FILE_SIZE];
}

int vfprintf(FILE *file, const char *format, va_list values) {
    char *text = NULL;
    int size = vasprintf(&text, format, values);
    if (size > 0) fwrite_unlocked(text, 1, (size_t)size, real(file));
    free(text);
    return size;
}

int fprintf(FILE *file, const char *format, ...) {
    va_list values;
    va_start(values, format);
    int size = vfprintf(file, format, values);
    va_end(values);
    return size;
}

size_t fwrite(const void *data, size_t size, size_t count, FILE *file) {
    return fwrite_unlocked(data, size, count, real(file));
}
int fputs(const char *text, FILE *file) {
    size_t size = strlen(text);
    return fwrite_unlocked(text, 1, size, real(file)) == size ? 0 : EOF;
}
int fputc(int character, FILE *file) { return fputc_unlocked(character, real(file)); }
int fflush(FILE *file) { return fflush_unlocked(file ? real(file) : NULL); }
int fileno(FILE *file) { return fileno_unlocked(real(file)); }

int *__errno(void) { return &errno; }
void __assert2(const char *file, int line, const char *function, const char *what) {
    dprintf(2, "%s:%d: %s: %s\n", file, line, function, what);
    abort();
}
void *__memcpy_chk(void *to, const void *from, size_t size, size_t room) {
    if (size > room) abort();
    return memcpy(to, from, size);
}
void *__memset_chk(void *to, int value, size_t size, size_t room) {
    if (size > room) abort();
    return memset(to, value, size);
}
int __open_2(const char *path, int flags) { return open(path, flags); }
ssize_t __read_chk(int file, void *to, size_t size, size_t room) {
    if (size > room) abort();
    return read(file, to, size);
}
char *__strchr_chk(const char *text, int character, size_t room) { (void)room; return strchr(text, character); }
size_t __strlen_chk(const char *text, size_t room) { (void)room; return strlen(text); }
char *__strcpy_chk(char *to, const char *from, size_t room) { (void)room; return strcpy(to, from); }
char *__strncpy_chk(char *to, const char *from, size_t size, size_t room) { (void)room; return strncpy(to, from, size); }
int __vsnprintf_chk(char *to, size_t size, int flags, size_t room, const char *format, va_list values) {
    (void)flags, (void)room;
    return vsnprintf(to, size, format, values);
}

void android_set_abort_message(const char *text) { dprintf(2, "abort: %s\n", text); }
int __system_property_get(const char *name, char *value) { (void)name; value[0] = 0; return 0; }
int __android_log_write(int priority, const char *tag, const char *text) {
    return dprintf(2, "[%d %s] %s\n", priority, tag, text);
}
int __android_log_vprint(int priority, const char *tag, const char *format, va_list values) {
    char text[1024];
    vsnprintf(text, sizeof text, format, values);
    return __android_log_write(priority, tag, text);
}
int __android_log_print(int priority, const char *tag, const char *format, ...) {
    va_list values;
    va_start(values, format);
    int size = __android_log_vprint(priority, tag, format, values);
    va_end(values);
    return size;
}

long double strtold_l(const char *text, char **end, locale_t locale) { (void)locale; return strtold(text, end); }
long long strtoll_l(const char *text, char **end, int base, locale_t locale) {
    (void)locale;
    return strtoll(text, end, base);
}
unsigned long long strtoull_l(const char *text, char **end, int base, locale_t locale) {
    (void)locale;
    return strtoull(text, end, base);
}

// bionic's numbers: bits/sysconf.h of the NDK.
long sysconf(int name) {
    long (*next)(int) = (long (*)(int))dlsym(RTLD_NEXT, "sysconf");
    switch (name) {
    case 0x27:
    case 0x28: return next(_SC_PAGESIZE);
    case 0x60: return next(_SC_NPROCESSORS_CONF);
    case 0x61: return next(_SC_NPROCESSORS_ONLN);
    case 0x62: return next(_SC_PHYS_PAGES);
    default: return next(name);
    }
}
