package android.net;

public abstract class Uri {
    public static native Uri parse(String text);
    public abstract String getHost();
    public abstract String getPath();
    public abstract String getLastPathSegment();
}
