package dev.edge.core;

import java.io.File;
import java.util.Collections;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** A model.json (PROTOCOL.md), and where it and its file are. */
public final class ModelInfo {
    static final String FILE = "model.json";
    private static final long FORMAT = 1;
    /** No device has so much; sums of these numbers stay far from the largest long. */
    private static final long MOST_BYTES = 1L << 50;
    private static final long MOST_TOKENS = 1L << 24;

    public final String id;
    public final String name;
    public final String origin;
    /** The model's file; null while an embedded model is not copied yet. */
    public final File file;
    public final long size;
    public final String sha256;
    public final int context;
    public final long kvBytesPerToken;
    private final long workBytes;
    private final Map<String, Object> data;

    /** folder: where the file lies; null for an embedded one. Failure not_supported, file_damaged. */
    ModelInfo(Map<String, Object> data, String origin, File folder) throws Failure {
        if (!Long.valueOf(FORMAT).equals(data.get("format"))) {
            throw new Failure(
                    "not_supported",
                    FILE + " has format " + data.get("format") + ", this app reads " + FORMAT,
                    "update the app, or package the model again");
        }
        this.data = data;
        this.origin = origin;
        this.id = text("id");
        this.name = text("name");
        this.size = number("size", 0, MOST_BYTES);
        this.sha256 = text("sha256");
        this.context = (int) number("context", 1, MOST_TOKENS);
        this.kvBytesPerToken = number("kv_bytes_per_token", 0, MOST_BYTES / MOST_TOKENS);
        this.workBytes = data.get("work_bytes") == null ? 0 : number("work_bytes", 0, MOST_BYTES);
        if (!id.matches("[a-z0-9._-]{1,80}") || id.startsWith(".") || !fileName().matches("[^/\\\\]+\\.gguf")) {
            throw damaged("id or file");
        }
        this.file = folder == null ? null : new File(folder, fileName());
    }

    private static Failure damaged(String what) {
        return new Failure("file_damaged", FILE + ": " + what + " is wrong", "package or push the model again");
    }

    private String text(String key) throws Failure {
        if (!(data.get(key) instanceof String)) {
            throw damaged(key);
        }
        return (String) data.get(key);
    }

    private long number(String key, long low, long high) throws Failure {
        Object value = data.get(key);
        if (!(value instanceof Long) || (Long) value < low || (Long) value > high) {
            throw damaged(key);
        }
        return (Long) value;
    }

    String fileName() {
        return String.valueOf(data.get("file"));
    }

    /** Bytes that the model takes with a context of so many tokens. */
    public long neededBytes(int tokens) {
        return size + tokens * kvBytesPerToken + workBytes;
    }

    Set<String> stop() {
        Set<String> texts = new HashSet<>();
        Object stop = data.get("stop");
        for (Object text : stop instanceof List ? (List<?>) stop : Collections.emptyList()) {
            texts.add(String.valueOf(text));
        }
        return texts;
    }

    /** The packaged texts; null when there are none. */
    @SuppressWarnings("unchecked")
    Turns turns() throws Failure {
        Object turns = data.get("turns");
        return turns instanceof Map ? Turns.of((Map<String, Object>) turns) : null;
    }

    /** Whether its template has a place for a system message; true when nobody looked yet. */
    private boolean takesSystem() {
        Object turns = data.get("turns");
        return !(turns instanceof Map) || ((Map<?, ?>) turns).get("start_system") != null;
    }

    /** Whether nobody looked for a template yet: a file that a person opened. */
    boolean bare() {
        return !data.containsKey("turns");
    }

    @SuppressWarnings("unchecked")
    Map<String, Object> sampling() {
        Object sampling = data.get("sampling");
        return sampling instanceof Map ? (Map<String, Object>) sampling : Collections.<String, Object>emptyMap();
    }

    Map<String, Object> toMap(Failure problem) {
        return Json.object(
                "id", id,
                "name", name,
                "origin", origin,
                "file", fileName(),
                "size", size,
                "context", context,
                "precision", data.get("precision"),
                "licence", data.get("licence"),
                "parameters", data.get("parameters"),
                "source", data.get("source"),
                "architecture", data.get("architecture"),
                "takes_system", takesSystem(),
                "needed_bytes", neededBytes(context),
                "problem", problem(problem));
    }

    static Object problem(Failure failure) {
        return failure == null
                ? null
                : Json.object("code", failure.code, "message", failure.getMessage(), "hint", failure.hint);
    }
}
