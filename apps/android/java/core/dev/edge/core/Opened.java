package dev.edge.core;

import java.io.File;
import java.util.Map;

/** A description for a GGUF that came without one, from its own metadata. */
final class Opened {
    private static final long CONTEXT = 4096;
    private static final long WORK = 200L << 20;
    private static final int F16 = 2;
    /** Over any model's; a product of four stays a positive long. ModelInfo refuses what is far too much. */
    private static final long MOST = 1 << 15;

    private Opened() {}

    static Map<String, Object> describe(File file) throws Failure {
        Map<String, Object> data = Gguf.metadata(file);
        String kind = String.valueOf(data.get("general.architecture"));
        long trained = number(data, kind + ".context_length", CONTEXT);
        long original = number(data, kind + ".rope.scaling.original_context_length", trained);
        long heads = number(data, kind + ".attention.head_count", 1);
        long headSize = number(data, kind + ".embedding_length", 0) / Math.max(1, heads);
        long keys = number(data, kind + ".attention.key_length", headSize);
        long values = number(data, kind + ".attention.value_length", headSize);
        long shared = number(data, kind + ".attention.head_count_kv", heads);
        return Json.object(
                "format", 1L,
                "architecture", kind,
                "context", Math.min(CONTEXT, Math.min(trained, original)),
                "kv_bytes_per_token", F16 * number(data, kind + ".block_count", 0) * shared * (keys + values),
                "work_bytes", WORK,
                "source", "opened from files",
                "licence", data.get("general.license"));
    }

    private static long number(Map<String, Object> data, String key, long otherwise) {
        Object value = data.get(key);
        return value instanceof Long && (Long) value > 0 ? Math.min((Long) value, MOST) : otherwise;
    }
}
