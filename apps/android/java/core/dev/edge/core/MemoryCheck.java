package dev.edge.core;

import java.io.File;
import java.io.IOException;
import java.util.Map;

/** Whether a model fits, from its own numbers, before anything of it is read; and what is in use. */
public final class MemoryCheck {
    private final File proc;

    public MemoryCheck(File proc) {
        this.proc = proc;
    }

    /** Bytes of a line of /proc/meminfo or /proc/self/status, -1 when it is not there. */
    private long read(String file, String name) {
        try {
            for (String line : Files.read(new File(proc, file)).split("\n")) {
                if (line.startsWith(name + ":")) {
                    return Long.parseLong(line.replaceAll("[^0-9]", "")) * 1024;
                }
            }
        } catch (IOException error) {
            return -1;
        }
        return -1;
    }

    /** Failure memory when weights, cache and work buffers are more than the device has available. */
    public void check(ModelInfo model, int context) throws Failure {
        long available = read("meminfo", "MemAvailable");
        long needed = model.neededBytes(context);
        if (available < 0 || needed <= available) {
            return;
        }
        long tokens = (available - model.neededBytes(0)) / Math.max(1, model.kvBytesPerToken);
        throw new Failure(
                "memory",
                model.name + " with a context of " + context + " tokens needs " + mega(needed) + " MB, "
                        + mega(available) + " MB are available",
                tokens >= 256
                        ? "close other apps, or set a context of " + tokens / 256 * 256 + " tokens"
                        : "close other apps, or choose a smaller model");
    }

    private static long mega(long bytes) {
        return (bytes + (1 << 20) - 1) >> 20;
    }

    Map<String, Object> toMap(int context, String variant) {
        return Json.object(
                "process_bytes", read("self/status", "VmRSS"),
                "available_bytes", read("meminfo", "MemAvailable"),
                "total_bytes", read("meminfo", "MemTotal"),
                "context", context,
                "variant", variant);
    }
}
