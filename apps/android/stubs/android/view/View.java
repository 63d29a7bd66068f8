package android.view;

import android.content.Context;
import android.content.res.Resources;

public class View {
    public View(Context context) {}
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
