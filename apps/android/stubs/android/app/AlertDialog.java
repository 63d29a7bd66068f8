package android.app;

import android.content.Context;

public class AlertDialog {
    public static class Builder {
        public Builder(Context context) {}
        public native Builder setMessage(CharSequence text);
        public native Builder setCancelable(boolean cancelable);
        public native AlertDialog show();
    }
}
