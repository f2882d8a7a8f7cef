// All records as text: each struct has a line with its size, and each field one with its kind, offset and size.

#include <string>

#include "interface.h"

namespace {

template <class Struct>
std::string described() {
  const std::string name = Described<Struct>::name;
  std::string text = name + " " + std::to_string(sizeof(Struct)) + "\n";
  for (const Field& field : Described<Struct>::fields)
    text += name + "." + field.name + " " + field.kind + " " + std::to_string(field.offset) + " " +
            std::to_string(field.size) + "\n";
  return text;
}

}  // namespace

extern "C" const char* thresher_records() {
  static const std::string text = described<Problem>() + described<Gradients>() + described<ScoreWork>() +
                                  described<RowWork>() + described<Linear>() +
                                  described<LinearWork>() + described<Norm>() + described<Stage>() +
                                  described<StageWork>() + described<LayersWork>() + described<BurnWork>();
  return text.c_str();
}
