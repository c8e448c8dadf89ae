// What is meant for the person at the keyboard.
#pragma once

#include <stdexcept>

namespace bpe {

// Something given to us cannot be used; in Python, bpe.errors.InputError.
class InputError : public std::runtime_error {
 public:
    using std::runtime_error::runtime_error;
};

}  // namespace bpe
