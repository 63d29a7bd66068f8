// Test only: what the kernel tells a program of the CPU, AT_HWCAP and AT_HWCAP2, in hexadecimal digits.
#include <stdio.h>
#include <sys/auxv.h>

int main(void) {
    printf("%lx %lx\n", getauxval(AT_HWCAP), getauxval(AT_HWCAP2));
    return 0;
}
