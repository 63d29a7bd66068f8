package android.view;

import android.content.Context;
import android.content.res.Resources;

public class View {
    public static final int SYSTEM_UI_FLAG_LIGHT_NAVIGATION_BAR = 16;
    public static final int SYSTEM_UI_FLAG_LIGHT_STATUS_BAR = 8192;

    public View(Context context) {}
    public native void setSystemUiVisibility(int flags);
    public native Resources getResources();
    public native boolean post(Runnable action);
    public native void setBackgroundColor(int color);
    public native void setPadding(int left, int top, int right, int bottom);
    public native void setOnApplyWindowInsetsListener(OnApplyWindowInsetsListener listener);
    public native WindowInsets onApplyWindowInsets(WindowInsets insets);

    public interface OnApplyWindowInsetsListener {
        WindowInsets onApplyWindowInsets(View view, WindowInsets insets);
    }
}
