package dev.edge.core;

import java.io.File;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Set;

/** Which build of llama.cpp a CPU can run: one with an instruction that it lacks would die in the middle of it. */
public final class CpuVariant {
    /** The llama.cpp of a computer, for tests; no phone has it. */
    static final String HOST = "llama";

    private static final String PLAIN = "rnllama_v8";
    private static final String DOT = "rnllama_v8_2_dotprod";
    private static final String DOT_I8MM = "rnllama_v8_2_dotprod_i8mm";

    private CpuVariant() {}

    /** Library names that this CPU can run, best first. cpuinfo: the text of /proc/cpuinfo. */
    public static List<String> choices(String cpuinfo) {
        Set<String> features = features(cpuinfo);
        boolean dot = features.containsAll(Arrays.asList("asimddp", "asimdhp", "fphp", "atomics"));
        List<String> names = new ArrayList<>();
        if (dot && features.contains("i8mm")) {
            names.add(DOT_I8MM);
        }
        if (dot) {
            names.add(DOT);
        }
        names.add(PLAIN);
        return names;
    }

    /** Features that every core has: big and little ones need not be the same. */
    private static Set<String> features(String cpuinfo) {
        Set<String> common = null;
        for (String line : cpuinfo.split("\n")) {
            String[] parts = line.split(":", 2);
            if (parts.length == 2 && parts[0].trim().equals("Features")) {
                Set<String> core = new HashSet<>(Arrays.asList(parts[1].trim().split("\\s+")));
                if (common == null) {
                    common = core;
                } else {
                    common.retainAll(core);
                }
            }
        }
        return common == null ? new HashSet<String>() : common;
    }

    /** Opens the best library that loads; its name. Failure library. */
    static String link(File libraries, String cpuinfo) throws Failure {
        List<String> names = choices(cpuinfo);
        names.add(HOST);
        String cause = "none of " + names + " in " + libraries + " can be loaded";
        try {
            for (String name : names) {
                File file = new File(libraries, "lib" + name + ".so");
                if (file.isFile() && Llama.link(file.getPath().getBytes(Engine.UTF_8)) == 0) {
                    return name;
                }
            }
        } catch (LinkageError error) {
            // The app's own library, which Llama loads, is missing or for another kind of device.
            cause = String.valueOf(error.getMessage());
        }
        throw new Failure("library", cause, "install the app again; it needs a 64-bit ARM device");
    }
}
