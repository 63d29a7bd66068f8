package dev.edge.core;

import java.io.BufferedReader;
import java.io.File;
import java.io.IOException;
import java.io.InputStreamReader;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Map;

/**
 * For tests: single classes of the app. Takes calls on stdin, a line of JSON each, and answers each with a line:
 * {"value": ..} or {"failure": [code, message]}. Arguments: llama.cpp's library, a model.
 */
public final class ClassProbe {
    private final Engine engine;

    private ClassProbe(Engine engine) {
        this.engine = engine;
    }

    public static void main(String[] arguments) throws Exception {
        Llama.link(arguments[0].getBytes(Engine.UTF_8));
        Engine engine = Engine.load(new File(arguments[1]), 256, 1, new Cancel(), new Llama.Progress() {
            @Override
            public boolean on(double fraction) {
                return true;
            }
        });
        ClassProbe probe = new ClassProbe(engine);
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, Engine.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            System.out.write((Json.write(probe.answer(Json.parseObject(line))) + "\n").getBytes(Engine.UTF_8));
            System.out.flush();
        }
        engine.close();
    }

    private Map<String, Object> answer(Map<String, Object> call) throws IOException {
        try {
            return Json.object("value", value(call));
        } catch (Failure failure) {
            return Json.object("failure", Arrays.asList(failure.code, failure.getMessage() + "; " + failure.hint));
        } catch (IllegalArgumentException error) {
            return Json.object("failure", Arrays.asList("json", error.getMessage()));
        }
    }

    private Object value(Map<String, Object> call) throws Failure, IOException {
        String text = (String) call.get("text");
        switch ((String) call.get("call")) {
            case "cpu":
                return CpuVariant.choices(text);
            case "memory":
                new MemoryCheck(new File(text)).check(model(call), ((Long) call.get("context")).intValue());
                return null;
            case "model":
                return model(call).neededBytes(model(call).context);
            case "gguf":
                return Gguf.metadata(new File(text));
            case "opened":
                return Opened.describe(new File(text));
            case "prompt":
                return prompt(call);
            case "run":
                return Runs.longest(text);
            case "json":
                return Json.write(Json.parse(text));
            default:
                throw new IllegalArgumentException(String.valueOf(call));
        }
    }

    @SuppressWarnings("unchecked")
    private static ModelInfo model(Map<String, Object> call) throws Failure {
        return new ModelInfo((Map<String, Object>) call.get("model"), "pushed", new File("."));
    }

    @SuppressWarnings("unchecked")
    private List<Integer> prompt(Map<String, Object> call) throws Failure {
        Words words = new Words(engine, engine.specialTexts(new HashSet<String>()));
        Turns turns = Turns.of((Map<String, Object>) call.get("turns"));
        turns.render((String) call.get("system"), (List<String>) call.get("messages"), words);
        List<Integer> ids = new ArrayList<>();
        for (int id : words.take()) {
            ids.add(id);
        }
        return ids;
    }
}
