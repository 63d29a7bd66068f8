package dev.edge.core;

import java.util.LinkedHashMap;
import java.util.Map;

/** The values of PROTOCOL.md's SETTINGS; unchangeable. */
public final class Settings {
    private static final Map<String, double[]> LIMITS = new LinkedHashMap<>();
    private static final Map<String, Object> DEFAULTS = new LinkedHashMap<>();

    static {
        DEFAULTS.put("system", "");
        number("temperature", 0.0, 0, 2);
        number("top_p", 1.0, 0.01, 1);
        number("top_k", 0L, 0, 1000);
        number("min_p", 0.0, 0, 1);
        number("repeat_penalty", 1.0, 0.5, 2);
        number("seed", -1L, -1, Integer.MAX_VALUE);
        number("max_tokens", 1024L, 1, 1 << 20);
        number("context", 0L, 0, 1 << 20);
        number("threads", 0L, 0, 64);
    }

    private final Map<String, Object> values;

    private Settings(Map<String, Object> values) {
        this.values = values;
    }

    private static void number(String name, Object value, double low, double high) {
        DEFAULTS.put(name, value);
        LIMITS.put(name, new double[] {low, high});
    }

    public static Settings defaults() {
        return new Settings(DEFAULTS);
    }

    /** These settings with other values. Failure bad_request for a name, a type or a value that is not allowed. */
    public Settings with(Map<String, Object> changes) throws Failure {
        Map<String, Object> next = new LinkedHashMap<>(values);
        for (Map.Entry<String, Object> change : changes.entrySet()) {
            String name = change.getKey();
            Object value = change.getValue();
            double[] limits = LIMITS.get(name);
            boolean right =
                    limits == null
                            ? name.equals("system") && value instanceof String
                            : value instanceof Number && allowed(name, (Number) value, limits);
            if (!right) {
                throw new Failure("bad_request", "the setting " + name + " cannot be " + value, hint(name, limits));
            }
            boolean whole = DEFAULTS.get(name) instanceof Long;
            next.put(name, limits == null ? value : whole ? (Object) ((Number) value).longValue() : (Object) real(value));
        }
        return new Settings(next);
    }

    private static double real(Object value) {
        return ((Number) value).doubleValue();
    }

    private static boolean allowed(String name, Number value, double[] limits) {
        double number = value.doubleValue();
        boolean whole = !(DEFAULTS.get(name) instanceof Long) || number == Math.rint(number);
        return whole && number >= limits[0] && number <= limits[1];
    }

    private static String hint(String name, double[] limits) {
        return limits == null ? "one of " + DEFAULTS.keySet() : "a number from " + limits[0] + " to " + limits[1];
    }

    public double number(String name) {
        return real(values.get(name));
    }

    public int integer(String name) {
        return ((Number) values.get(name)).intValue();
    }

    public String system() {
        return (String) values.get("system");
    }

    public Map<String, Object> toMap() {
        return new LinkedHashMap<>(values);
    }

    /** {name: [low, high]} */
    public static Map<String, Object> limits() {
        Map<String, Object> map = new LinkedHashMap<>();
        for (Map.Entry<String, double[]> limit : LIMITS.entrySet()) {
            map.put(limit.getKey(), java.util.Arrays.<Object>asList(limit.getValue()[0], limit.getValue()[1]));
        }
        return map;
    }
}
