package android.view;

import android.content.Context;
import android.content.res.Resources;

public class View {
    public static final int OVER_SCROLL_NEVER = 2;
    public static final int SYSTEM_UI_FLAG_LAYOUT_STABLE = 256;
    public static final int SYSTEM_UI_FLAG_LAYOUT_HIDE_NAVIGATION = 512;
    public static final int SYSTEM_UI_FLAG_LAYOUT_FULLSCREEN = 1024;
    public static final int SYSTEM_UI_FLAG_LIGHT_STATUS_BAR = 8192;
    public static final int SYSTEM_UI_FLAG_LIGHT_NAVIGATION_BAR = 16;

    public View(Context context) {}
    public native Context getContext();
    public final native Resources getResources();
    public native boolean post(Runnable action);
    public native void setBackgroundColor(int color);
    public native void setPadding(int left, int top, int right, int bottom);
    public native void setOverScrollMode(int mode);
    public native void setSystemUiVisibility(int flags);
    public native void setFitsSystemWindows(boolean fits);
    public native void requestApplyInsets();
    public native void setOnApplyWindowInsetsListener(OnApplyWindowInsetsListener listener);
    public native WindowInsets onApplyWindowInsets(WindowInsets insets);

    public interface OnApplyWindowInsetsListener {
        WindowInsets onApplyWindowInsets(View view, WindowInsets insets);
    }
}
