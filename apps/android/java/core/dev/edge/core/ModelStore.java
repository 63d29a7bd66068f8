package dev.edge.core;

import java.io.File;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.io.InputStream;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/** The models of this device: in the APK, pushed, and opened. A folder without model.json is not there. */
final class ModelStore {
    private final Platform platform;

    ModelStore(Platform platform) {
        this.platform = platform;
        own().mkdirs();
    }

    private File own() {
        return new File(platform.files(), "models");
    }

    /** Every model, embedded first; one that cannot be described is left out and told to `problems`. */
    List<ModelInfo> list(List<Failure> problems) {
        List<ModelInfo> found = new ArrayList<>();
        try (InputStream in = platform.asset(ModelInfo.FILE)) {
            Map<String, Object> data = Json.parseObject(Files.read(in));
            File folder = new File(own(), String.valueOf(data.get("id")));
            found.add(new ModelInfo(data, "embedded", folder));
        } catch (FileNotFoundException none) {
            found.clear();
        } catch (IOException | IllegalArgumentException error) {
            problems.add(damaged("the app's " + ModelInfo.FILE, error));
        } catch (Failure failure) {
            problems.add(failure);
        }
        List<File> places = new ArrayList<>(platform.pushed());
        places.add(own());
        for (File place : places) {
            File[] folders = place.listFiles();
            for (File folder : folders == null ? new File[0] : sorted(folders)) {
                add(folder, place.equals(own()) ? "opened" : "pushed", found, problems);
            }
        }
        return found;
    }

    private static File[] sorted(File[] files) {
        java.util.Arrays.sort(files);
        return files;
    }

    private static void add(File folder, String origin, List<ModelInfo> found, List<Failure> problems) {
        File description = new File(folder, ModelInfo.FILE);
        if (!description.isFile()) {
            return;
        }
        try {
            Map<String, Object> data = Json.parseObject(Files.read(description));
            ModelInfo info = new ModelInfo(data, "pushed".equals(data.get("origin")) ? "pushed" : origin, folder);
            for (ModelInfo other : found) {
                if (other.id.equals(info.id)) {
                    return;
                }
            }
            found.add(info);
        } catch (IOException | IllegalArgumentException error) {
            problems.add(damaged(description.getPath(), error));
        } catch (Failure failure) {
            problems.add(failure);
        }
    }

    private static Failure damaged(String what, Exception error) {
        return new Failure("file_damaged", what + ": " + error.getMessage(), "package or push the model again");
    }

    /** Failure no_model. */
    ModelInfo find(String id) throws Failure {
        for (ModelInfo model : list(new ArrayList<Failure>())) {
            if (model.id.equals(id)) {
                return model;
            }
        }
        throw new Failure("no_model", "there is no model " + id + " on this device", "choose another model");
    }

    /** What keeps it from being loaded that can be told at a glance; null when nothing does. */
    Failure problem(ModelInfo model) {
        boolean waits = model.origin.equals("embedded") && !model.file.exists();
        if (!waits && !model.file.isFile()) {
            return new Failure("file_missing", model.file + " is gone", "push or open the model again");
        }
        if (!waits && model.file.length() != model.size) {
            return wrong(model, model.file.length() + " bytes, not " + model.size);
        }
        return null;
    }

    private static Failure wrong(ModelInfo model, String why) {
        return new Failure("file_damaged", model.fileName() + ": " + why, "push or open the model again");
    }

    /** A real file to map, with the SHA-256 that it should have. The hash is computed once for a size and a time. */
    File ready(ModelInfo model, Files.Advance copying, Files.Advance checking) throws Failure {
        if (model.origin.equals("embedded") && !model.file.exists()) {
            copyEmbedded(model, copying);
        }
        Failure problem = problem(model);
        if (problem != null) {
            throw problem;
        }
        File mark = new File(own(), model.id + ".checked");
        String now = model.sha256 + " " + model.file.length() + " " + model.file.lastModified();
        try {
            if (mark.isFile() && Files.read(mark).equals(now)) {
                return model.file;
            }
            String found = Files.sha256(model.file, checking);
            if (!found.equals(model.sha256)) {
                throw wrong(model, "SHA-256 " + found + ", not " + model.sha256);
            }
            Files.write(mark, now);
        } catch (IOException error) {
            throw new Failure("storage", String.valueOf(error.getMessage()), "make room on the device");
        }
        return model.file;
    }

    private void copyEmbedded(ModelInfo model, Files.Advance copying) throws Failure {
        try (InputStream in = platform.asset(model.fileName())) {
            String found = Files.copy(in, model.file, model.size, copying);
            if (!found.equals(model.sha256)) {
                model.file.delete();
                throw wrong(model, "the app holds other bytes");
            }
        } catch (IOException error) {
            throw new Failure("file_missing", "the app has no " + model.fileName(), "install the app again");
        }
    }

    /** Takes a picked file in: a description (NAME.json), or a model with or without one. */
    void add(String name, InputStream in, long size, Files.Advance copying) throws Failure {
        String stem = name.replaceFirst("\\.[^.]*$", "").toLowerCase(java.util.Locale.ROOT);
        String id = stem.replaceAll("[^a-z0-9._-]", "-").replaceFirst("^\\.+", "");
        id = id.isEmpty() ? "model" : id.substring(0, Math.min(80, id.length()));
        File folder = new File(own(), id);
        File waiting = new File(own(), id + ".json");
        if (name.endsWith(".json")) {
            Files.copy(in, waiting, size, copying);
            return;
        }
        File file = new File(folder, "model.gguf");
        String sha256 = Files.copy(in, file, size, copying);
        try {
            Map<String, Object> data = waiting.isFile() ? Json.parseObject(Files.read(waiting)) : Opened.describe(file);
            waiting.delete();
            data.putAll(Json.object("id", id, "file", file.getName()));
            if (!data.containsKey("sha256")) {
                data.putAll(Json.object("name", name, "size", file.length(), "sha256", sha256));
            }
            new ModelInfo(data, "opened", folder);
            Files.write(new File(folder, ModelInfo.FILE), Json.write(data));
        } catch (IOException | IllegalArgumentException error) {
            Files.delete(folder);
            throw damaged(name, error);
        } catch (Failure failure) {
            Files.delete(folder);
            throw failure;
        }
    }

    /** Failure no_model, or bad_request for an embedded one. */
    void remove(String id) throws Failure {
        ModelInfo model = find(id);
        if (model.origin.equals("embedded")) {
            throw new Failure("bad_request", model.name + " is part of the app", "remove the app");
        }
        Files.delete(model.file.getParentFile());
        new File(own(), id + ".checked").delete();
    }
}
