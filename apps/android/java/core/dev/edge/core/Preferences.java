package dev.edge.core;

import java.io.File;
import java.io.IOException;
import java.util.LinkedHashMap;
import java.util.Map;

/** The settings: the app's, over them the model's, over them the person's, which are kept in a file. */
final class Preferences {
    private final File file;
    private Map<String, Object> chosen = new LinkedHashMap<>();
    private Settings defaults = Settings.defaults();

    Preferences(File file) {
        this.file = file;
        try {
            Map<String, Object> kept = Json.parseObject(Files.read(file));
            defaults.with(kept);
            chosen = kept;
        } catch (IOException | IllegalArgumentException | Failure none) {
            chosen = new LinkedHashMap<>();
        }
    }

    synchronized Settings settings() {
        try {
            return defaults.with(chosen);
        } catch (Failure impossible) {
            throw new IllegalStateException(impossible);
        }
    }

    /** Takes a model's own sampling; a value that the app does not allow is left away. */
    synchronized void use(Map<String, Object> sampling) {
        defaults = Settings.defaults();
        for (Map.Entry<String, Object> entry : sampling.entrySet()) {
            try {
                defaults = defaults.with(Json.object(entry.getKey(), entry.getValue()));
            } catch (Failure unknown) {
                continue;
            }
        }
    }

    /** Takes changes, when there are some, and tells. Failure bad_request, storage. */
    synchronized void tell(Object changes, Reply reply) throws Failure {
        if (changes instanceof Map) {
            Map<String, Object> next = new LinkedHashMap<>(chosen);
            for (Map.Entry<?, ?> change : ((Map<?, ?>) changes).entrySet()) {
                next.put((String) change.getKey(), change.getValue());
            }
            defaults.with(next);
            chosen = next;
            try {
                Files.write(file, Json.write(chosen));
            } catch (IOException error) {
                throw new Failure("storage", "the settings are not kept: " + error.getMessage(), "make room on the device");
            }
        } else if (changes != null) {
            throw new Failure("bad_request", "values is no object", "see PROTOCOL.md");
        }
        reply.send(
                "settings",
                Json.object(
                        "values", settings().toMap(), "defaults", defaults.toMap(), "limits", Settings.limits()));
    }
}
