// Errors whose messages are written for the user.
#pragma once

#include <stdexcept>

namespace bpe {

// Input from the user cannot be used. Becomes bpe.errors.InputError in Python.
class InputError : public std::runtime_error {
 public:
    using std::runtime_error::runtime_error;
};

}  // namespace bpe
