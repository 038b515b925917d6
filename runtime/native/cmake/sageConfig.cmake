include("${CMAKE_CURRENT_LIST_DIR}/sageTargets.cmake")
