package android.view;

import android.graphics.Insets;

public final class WindowInsets {
    public static final WindowInsets CONSUMED = null;

    public native int getSystemWindowInsetLeft();
    public native int getSystemWindowInsetTop();
    public native int getSystemWindowInsetRight();
    public native int getSystemWindowInsetBottom();
    public native WindowInsets consumeSystemWindowInsets();
    public native Insets getInsets(int types);

    public static final class Type {
        public static native int systemBars();
        public static native int ime();
        public static native int displayCutout();
    }
}
