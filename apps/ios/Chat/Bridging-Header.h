#import <rnllama/llama.h>
