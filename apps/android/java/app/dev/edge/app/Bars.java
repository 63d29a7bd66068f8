package dev.edge.app;

import android.graphics.Color;
import android.graphics.Insets;
import android.os.Build;
import android.view.View;
import android.view.Window;
import android.view.WindowInsets;
import android.view.WindowInsetsController;

/**
 * Status bar, navigation bar and keyboard. From Android 11 the page reaches under the bars and is told how far they
 * come in (CSS pixels, as --inset-*); the keyboard takes its part off the view. Before that, Android keeps the window
 * clear of them.
 */
final class Bars {
    private static final int LIGHT =
            WindowInsetsController.APPEARANCE_LIGHT_STATUS_BARS
                    | WindowInsetsController.APPEARANCE_LIGHT_NAVIGATION_BARS;
    private static final int LIGHT_BEFORE_R =
            View.SYSTEM_UI_FLAG_LIGHT_STATUS_BAR | View.SYSTEM_UI_FLAG_LIGHT_NAVIGATION_BAR;

    private final Window window;
    private final Page page;

    Bars(Window window, Page page) {
        this.window = window;
        this.page = page;
    }

    void watch(View frame) {
        if (Build.VERSION.SDK_INT < Build.VERSION_CODES.R) {
            return;
        }
        window.setDecorFitsSystemWindows(false);
        final float density = frame.getResources().getDisplayMetrics().density;
        frame.setOnApplyWindowInsetsListener(new View.OnApplyWindowInsetsListener() {
            @Override
            public WindowInsets onApplyWindowInsets(View view, WindowInsets insets) {
                Insets bars = insets.getInsets(WindowInsets.Type.systemBars() | WindowInsets.Type.displayCutout());
                int keyboard = insets.getInsets(WindowInsets.Type.ime()).bottom;
                view.setPadding(0, 0, 0, keyboard);
                int bottom = keyboard > 0 ? 0 : bars.bottom;
                page.insets(bars.top / density, bars.right / density, bottom / density, bars.left / density);
                return WindowInsets.CONSUMED;
            }
        });
    }

    /** Bars in the page's colour with icons that can be seen on it. */
    static void paint(Window window, boolean dark) {
        int ground = dark ? Color.rgb(0x10, 0x13, 0x16) : Color.WHITE;
        View decor = window.getDecorView();
        decor.setBackgroundColor(ground);
        if (Build.VERSION.SDK_INT < Build.VERSION_CODES.R) {
            window.setStatusBarColor(ground);
            window.setNavigationBarColor(ground);
            decor.setSystemUiVisibility(dark ? 0 : LIGHT_BEFORE_R);
            return;
        }
        window.setStatusBarColor(Color.TRANSPARENT);
        window.setNavigationBarColor(Color.TRANSPARENT);
        window.setNavigationBarContrastEnforced(false);
        window.getInsetsController().setSystemBarsAppearance(dark ? 0 : LIGHT, LIGHT);
    }
}
