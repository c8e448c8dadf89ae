// The shape of a layer in training, and the arrays that its forward and backward passes read and write.
#pragma once

#include <cstddef>
#include <cstdint>

namespace model {

// The shape of a layer and its input: `batch` rows of `time` tokens each.
struct LayerShape {
    std::size_t batch, time, dim, heads, kv_heads, head_dim, hidden;
    float epsilon;  // of the norms

    std::size_t tokens() const { return batch * time; }
    std::size_t queries() const { return heads * head_dim; }
    std::size_t keys() const { return kv_heads * head_dim; }
};

// The weights of a layer, or their gradients: norms [dim], matrices [out, in].
template <class T>
struct LayerWeights {
    T *attention_norm, *wq, *wk, *wv, *wo, *ffn_norm, *w1, *w2, *w3;
};

// The positions of tokens.
struct Positions {
    const float* rotation;       // cosine and sine of the angle of each pair, [rotations, head_dim]
    std::size_t rotations;       // `time`, or one for each token
    const std::int64_t* begins;  // [tokens]: the first token in its row that each attends to; null: the row's first
};

// The activations that the forward pass saves for the backward pass.
template <class T>
struct LayerStates {
    T* inverse;          // [tokens]: 1 / root mean square of x
    T *queries, *keys;   // [tokens, heads * head_dim] and [tokens, kv_heads * head_dim], rotated
    T* values;           // [tokens, kv_heads * head_dim]
    T* attended;         // [tokens, heads * head_dim]: the result of attention, before wo
    T* between;          // [tokens, dim]: the input of the feed-forward network, before its norm
    T* between_inverse;  // [tokens]: 1 / root mean square of `between`
    T *gate, *up;        // [tokens, hidden]: the products with w1 and w3
};

}  // namespace model
