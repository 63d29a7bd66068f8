package dev.edge.core;

import java.io.File;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Collections;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.UUID;

/** Conversations on the device, a file each, written whole. */
final class History {
    private final File folder;

    History(File folder) {
        this.folder = folder;
        folder.mkdirs();
    }

    Conversation start() {
        return new Conversation(UUID.randomUUID().toString());
    }

    private File file(String id) throws Failure {
        if (!id.matches("[0-9a-f-]{36}")) {
            throw new Failure("bad_request", "there is no conversation " + id, "choose one of the list");
        }
        return new File(folder, id + ".json");
    }

    /** Failure storage. */
    void save(Conversation conversation) throws Failure {
        try {
            Files.write(file(conversation.id), Json.write(conversation.toMap()));
        } catch (IOException error) {
            throw new Failure("storage", "the conversation is not kept: " + error.getMessage(), "make room on the device");
        }
    }

    /** Failure bad_request when it is not there or damaged. */
    Conversation open(String id) throws Failure {
        Conversation found = read(file(id));
        if (found == null) {
            throw new Failure("bad_request", "there is no conversation " + id, "choose one of the list");
        }
        return found;
    }

    private static Conversation read(File file) {
        try {
            return Conversation.of(Json.parseObject(Files.read(file)));
        } catch (IOException | RuntimeException error) {
            return null;
        }
    }

    void delete(String id) throws Failure {
        file(id).delete();
    }

    void deleteAll() {
        Files.delete(folder);
        folder.mkdirs();
    }

    /** Newest first. A damaged file is left out. */
    List<Map<String, Object>> list() {
        List<Conversation> found = new ArrayList<>();
        File[] files = folder.listFiles();
        for (File file : files == null ? new File[0] : files) {
            Conversation conversation = file.getName().endsWith(".json") ? read(file) : null;
            if (conversation != null) {
                found.add(conversation);
            }
        }
        Collections.sort(
                found,
                new Comparator<Conversation>() {
                    @Override
                    public int compare(Conversation one, Conversation other) {
                        return Long.compare(other.updated, one.updated);
                    }
                });
        List<Map<String, Object>> summaries = new ArrayList<>();
        for (Conversation conversation : found) {
            summaries.add(conversation.summary());
        }
        return summaries;
    }
}
