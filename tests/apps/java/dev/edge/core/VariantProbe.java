package dev.edge.core;

import java.io.File;
import java.io.IOException;

/** For tests: what CpuVariant chooses. Arguments: texts of /proc/cpuinfo, a file each. Prints a line each, best first. */
public final class VariantProbe {
    private VariantProbe() {}

    public static void main(String[] files) throws IOException {
        for (String file : files) {
            System.out.println(String.join(" ", CpuVariant.choices(Files.read(new File(file)))));
        }
    }
}
